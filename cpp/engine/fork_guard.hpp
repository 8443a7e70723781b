// Threads do not survive fork(): in the child an engine is a picture of one, and waiting for it would never end.
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
