#include "engine/fork_guard.hpp"

#include <unistd.h>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

ForkGuard::ForkGuard() noexcept : owner_(::getpid()) {}

bool ForkGuard::in_child() const noexcept { return ::getpid() != owner_; }

void ForkGuard::check() const {
  if (!in_child()) return;
  throw Aborted(str("the engine of process ", owner_, " is used in a child of fork() (process ", ::getpid(),
                    "), where its threads do not run; create an engine in the child, or fork before creating one"));
}

}  // namespace pagedcore
