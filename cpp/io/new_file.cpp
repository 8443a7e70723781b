#include "io/new_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::io {
namespace {

[[noreturn]] void refuse(const std::string& path, const char* what, int error) {
  throw Io(str(path, ": cannot be ", what, ": ", std::strerror(error)));
}

// A rename is on disk only when its directory is. Some file systems cannot sync a directory (EINVAL): they need not.
void sync_directory_of(const std::string& path) {
  std::string directory = std::filesystem::path(path).parent_path().string();
  if (directory.empty()) directory = ".";
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // a directory that may be written but not read
  const int error = ::fsync(fd) != 0 && errno != EINVAL ? errno : 0;
  ::close(fd);
  if (error != 0) refuse(directory, "synchronised", error);
}

}  // namespace

NewFile::NewFile(std::string path) : path_(std::move(path)) {
  // A rename replaces anything: root would turn /dev/null into a file, for every program of the machine.
  struct stat there {};
  if (::lstat(path_.c_str(), &there) == 0 && !S_ISREG(there.st_mode) && !S_ISLNK(there.st_mode))
    throw Io(str(path_, ": is there, and is neither a regular file nor a link: it is not replaced"));
  for (int attempt = 0; fd_ < 0; ++attempt) {
    temporary_ = str(path_, ".", ::getpid(), ".", attempt, ".tmp");
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && (errno != EEXIST || attempt == 1000)) refuse(temporary_, "created", errno);
  }
}

NewFile::~NewFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void NewFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) refuse(temporary_, "written", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void NewFile::commit() {
  if (::fsync(fd_) != 0) refuse(temporary_, "synchronised", errno);
  if (::close(std::exchange(fd_, -1)) != 0) refuse(temporary_, "closed", errno);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) refuse(path_, "replaced", errno);
  temporary_.clear();
  sync_directory_of(path_);
}

}  // namespace pagedcore::io
