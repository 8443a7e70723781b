// Threads do not survive fork(): a child has a copy of the engine without its threads, and would wait for them forever.
#pragma once

#include <sys/types.h>

namespace pagedcore {

class ForkGuard {
 public:
  ForkGuard() noexcept;
  /// True in a child of the process that made this object. Takes no lock: another thread may have held any lock at the
  /// moment of the fork.
  bool in_child() const noexcept;
  /// Throws Aborted in a child.
  void check() const;

 private:
  pid_t owner_;
};

}  // namespace pagedcore
