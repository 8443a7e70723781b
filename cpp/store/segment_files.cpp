#include "store/segment_files.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::store {
namespace {

constexpr std::string_view kSuffix = ".kv";
constexpr int kCommon = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;  // never waits for the other end of a FIFO

double seconds(const timespec& time) {
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

bool is_own(const struct stat& status) { return S_ISREG(status.st_mode) && status.st_uid == ::geteuid(); }

}  // namespace

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}
Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this == &other) return *this;
  if (fd_ >= 0) ::close(fd_);
  fd_ = other.release();
  return *this;
}
int Descriptor::release() noexcept { return std::exchange(fd_, -1); }

std::string system_error(std::string_view path, std::string_view what, int error) {
  return str("kv_store ", path, ": ", what, ": ", std::strerror(error));
}

SegmentFiles::SegmentFiles(const std::string& directory) : directory_(directory) {
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST)
    throw Io(str(system_error(directory, "the directory cannot be made", errno),
                 "; name one whose parent is there and may be written to"));
  fd_ = Descriptor(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK));
  if (!fd_)
    throw Io(str(system_error(directory, errno == ENOTDIR ? "is no directory" : "cannot be opened", errno),
                 "; name a directory of your own, or a path where there is nothing yet"));
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) throw Io(system_error(directory, "cannot be looked at", errno));
  if (status.st_uid != ::geteuid())
    throw Io(str("kv_store ", directory, ": belongs to user ", status.st_uid, ", and this process is user ",
                 ::geteuid(), "; keys and values tell what prompts were, so name a directory of your own"));
  if ((status.st_mode & 022) != 0)
    throw Io(str("kv_store ", directory, ": others may write to it; name a directory that is new, or yours alone (",
                 "chmod 700 ", directory, ")"));
}

std::vector<FileInfo> SegmentFiles::list() const {
  std::vector<FileInfo> files;
  // A descriptor of its own: readdir() moves the offset of the one that it reads.
  Descriptor own(::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!own) return files;
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(own.get()), &::closedir);
  if (!stream) return files;
  static_cast<void>(own.release());  // the stream has it
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string_view name = entry->d_name;
    if (!name.ends_with(kSuffix)) continue;
    struct stat status {};
    if (::fstatat(fd_.get(), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0 || !is_own(status)) continue;
    files.push_back({std::string(name), static_cast<std::uint64_t>(status.st_size), seconds(status.st_mtim)});
  }
  return files;
}

Descriptor SegmentFiles::open(const std::string& name, bool writable, std::string* why) const {
  Descriptor file(::openat(fd_.get(), name.c_str(), (writable ? O_RDWR : O_RDONLY) | kCommon));
  struct stat status {};
  if (file && ::fstat(file.get(), &status) == 0 && is_own(status)) return file;
  if (why != nullptr)
    *why = file ? str("kv_store ", directory_, ": ", name, " is no file of this user")
                : system_error(str(directory_, '/', name), "cannot be opened", errno);
  return Descriptor();
}

Descriptor SegmentFiles::create(const std::string& name, std::string& why) const {
  Descriptor file(::openat(fd_.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | kCommon, 0600));
  if (!file) {
    why = system_error(str(directory_, '/', name), "cannot be made", errno);
  } else if (!lock(file)) {
    why = system_error(str(directory_, '/', name), "cannot be locked", errno);
    ::unlinkat(fd_.get(), name.c_str(), 0);
    return Descriptor();
  }
  return file;
}

bool SegmentFiles::lock(const Descriptor& file) noexcept { return ::flock(file.get(), LOCK_EX | LOCK_NB) == 0; }

bool SegmentFiles::remove(const std::string& name) const {
  const Descriptor file = open(name, false);
  return file && lock(file) && ::unlinkat(fd_.get(), name.c_str(), 0) == 0;
}

bool SegmentFiles::exists(const std::string& name) const {
  struct stat status {};
  return ::fstatat(fd_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
}

}  // namespace pagedcore::store
