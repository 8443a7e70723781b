#include "engine/swap_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

class PosixSwapFile final : public SwapFile {
 public:
  explicit PosixSwapFile(const std::string& path) : path_(path) {
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd_ < 0) {
      const int reason = errno;
      throw Io(str("swap file ", path, ": it cannot be created: ", std::strerror(reason), "; ",
                   reason == EEXIST ? "choose a path where there is no file yet (a running engine's has no name)"
                                    : "choose a path in a directory that can be written to"));
    }
    ::unlink(path.c_str());  // if that fails the file stays, of no use to anybody
  }
  ~PosixSwapFile() override { ::close(fd_); }
  PosixSwapFile(const PosixSwapFile&) = delete;
  PosixSwapFile& operator=(const PosixSwapFile&) = delete;

  void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
    each(offset, bytes.size(), "written",
         [&](std::size_t done, off_t at) { return ::pwrite(fd_, bytes.data() + done, bytes.size() - done, at); });
  }
  void read(std::uint64_t offset, std::span<std::byte> bytes) override {
    each(offset, bytes.size(), "read",
         [&](std::size_t done, off_t at) { return ::pread(fd_, bytes.data() + done, bytes.size() - done, at); });
  }

 private:
  /// One call, normally; more when the kernel does less than was asked.
  template <class Call>
  void each(std::uint64_t offset, std::size_t size, const char* what, const Call& call) {
    for (std::size_t done = 0; done < size;) {
      const ssize_t count = call(done, static_cast<off_t>(offset + done));
      if (count > 0) {
        done += static_cast<std::size_t>(count);
      } else if (count == 0 || errno != EINTR) {
        throw Io(str("swap file ", path_, ": ", size, " bytes at ", offset, " cannot be ", what, ": ",
                     count == 0 ? "the file ends before them" : std::strerror(errno)));
      }
    }
  }

  std::string path_;
  int fd_ = -1;
};

}  // namespace

std::unique_ptr<SwapFile> make_swap_file(const std::string& path) { return std::make_unique<PosixSwapFile>(path); }

}  // namespace pagedcore
