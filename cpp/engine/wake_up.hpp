// A descriptor that is readable while there is something to take: what an event loop watches instead of a thread that
// waits.
#pragma once

namespace pagedcore {

class WakeUp {
 public:
  enum class Kind { eventfd, pipe };
  /// What this system has: an eventfd on Linux, elsewhere a pipe.
  static Kind best() noexcept;

  /// Throws Io when the process has no descriptor left.
  explicit WakeUp(Kind kind = best());
  ~WakeUp();
  WakeUp(const WakeUp&) = delete;
  WakeUp& operator=(const WakeUp&) = delete;

  int fd() const noexcept { return read_; }
  /// Makes it readable, or unreadable again; nothing where it is so already. Neither blocks. One thread at a time.
  void raise() noexcept;
  void lower() noexcept;

 private:
  int read_ = -1, write_ = -1;  // the same one of an eventfd
  bool raised_ = false;
};

}  // namespace pagedcore
