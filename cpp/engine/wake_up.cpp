#include "engine/wake_up.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

#ifdef __linux__
#include <sys/eventfd.h>
#endif

namespace pagedcore {
namespace {

[[noreturn]] void refuse() {
  throw Io(str("the descriptor that tells of outputs could not be opened: ", std::strerror(errno),
               "; check this process's limit on open files"));
}

}  // namespace

WakeUp::Kind WakeUp::best() noexcept {
#ifdef __linux__
  return Kind::eventfd;
#else
  return Kind::pipe;
#endif
}

WakeUp::WakeUp([[maybe_unused]] Kind kind) {
#ifdef __linux__
  if (kind == Kind::eventfd) {
    read_ = write_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (read_ < 0) refuse();
    return;
  }
#endif
  int ends[2] = {};
  if (::pipe(ends) != 0) refuse();
  read_ = ends[0], write_ = ends[1];
  for (const int end : ends) {
    ::fcntl(end, F_SETFD, FD_CLOEXEC);
    ::fcntl(end, F_SETFL, O_NONBLOCK);
  }
}

WakeUp::~WakeUp() {
  ::close(read_);
  if (write_ != read_) ::close(write_);
}

// An eventfd wants all eight bytes; a pipe takes and gives them as one, being empty whenever it is written to.

void WakeUp::raise() noexcept {
  if (raised_) return;
  const std::uint64_t one = 1;
  raised_ = ::write(write_, &one, sizeof one) == sizeof one;
}

void WakeUp::lower() noexcept {
  if (!raised_) return;
  std::uint64_t count = 0;
  raised_ = ::read(read_, &count, sizeof count) != sizeof count;
}

}  // namespace pagedcore
