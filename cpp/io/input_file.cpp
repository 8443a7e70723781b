#include "pagedcore/input_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

[[noreturn]] void refuse(const std::string& path, const char* what, int error) {
  throw Io(str(path, ": cannot be ", what, ": ", std::strerror(error)));
}

/// What changes when a file is written to.
struct State {
  std::int64_t size = 0, seconds = 0, nanoseconds = 0;
  bool operator==(const State&) const = default;
};

State state_of(const struct stat& status) {
#if defined(__APPLE__)
  const timespec& time = status.st_mtimespec;
#else
  const timespec& time = status.st_mtim;
#endif
  return {status.st_size, time.tv_sec, time.tv_nsec};
}

}  // namespace

struct InputFile::Impl {
  explicit Impl(const std::string& file_path) : path(file_path) {
    // O_NONBLOCK: opening a named pipe must not wait for its writer. It means nothing to a regular file.
    fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) refuse(path, "opened", errno);
  }
  ~Impl() {
    if (!mapped.empty()) ::munmap(const_cast<std::byte*>(mapped.data()), mapped.size());
    if (fd >= 0) ::close(fd);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void examine(bool mmap) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) refuse(path, "examined", errno);
    if (S_ISDIR(status.st_mode)) refuse(path, "read", EISDIR);
    if (!S_ISREG(status.st_mode)) throw Io(str(path, ": is not a regular file"));
    if (status.st_size == 0) throw Io(str(path, ": is empty"));
    opened = state_of(status);
    if (!mmap) return;
    const auto size = static_cast<std::size_t>(status.st_size);
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address == MAP_FAILED) refuse(path, "mapped", errno);
    mapped = {static_cast<const std::byte*>(address), size};
  }

  void check_unchanged() const {
    struct stat status {};
    if (::fstat(fd, &status) != 0) refuse(path, "examined", errno);
    if (state_of(status) == opened) return;
    throw Io(str(path, ": was changed while it was read (it had ", opened.size, " bytes, now ", status.st_size,
                 "): replace model files by renaming a complete one over them"));
  }

  const std::string path;
  int fd = -1;
  State opened;
  std::span<const std::byte> mapped;
};

InputFile::InputFile(const std::string& path, bool mmap) : impl_(std::make_unique<Impl>(path)) { impl_->examine(mmap); }
InputFile::~InputFile() = default;

std::uint64_t InputFile::size() const noexcept { return static_cast<std::uint64_t>(impl_->opened.size); }

void InputFile::read(std::uint64_t offset, std::span<std::byte> out) const {
  const Impl& file = *impl_;
  if (offset > size() || out.size() > size() - offset)
    throw InvalidArgument(str(file.path, ": bytes ", offset, " to ", offset, " + ", out.size(),
                              " lie outside the file of ", size(), " bytes"));
  while (!out.empty()) {
    constexpr std::size_t most = std::size_t{1} << 30;  // a call takes less than 2 GiB
    const ssize_t got = ::pread(file.fd, out.data(), std::min(out.size(), most), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse(file.path, "read", errno);
    if (got == 0) break;
    offset += static_cast<std::uint64_t>(got);
    out = out.subspan(static_cast<std::size_t>(got));
  }
  file.check_unchanged();
  if (!out.empty()) throw Io(str(file.path, ": ends at byte ", offset, " of ", size(), " while it is read"));
}

HostTensor InputFile::part(std::uint64_t offset, std::uint64_t length) const {
  if (offset > size() || length > size() - offset)
    throw InvalidArgument(str(impl_->path, ": bytes ", offset, " to ", offset, " + ", length,
                              " lie outside the file of ", size(), " bytes"));
  HostTensor bytes{DType::u8, {static_cast<std::int64_t>(length)}, 1};
  if (impl_->mapped.empty()) {
    bytes.source = this;
    bytes.offset = offset;
    bytes.length = static_cast<std::size_t>(length);
  } else {
    bytes.data = impl_->mapped.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(length));
  }
  return bytes;
}

}  // namespace pagedcore
