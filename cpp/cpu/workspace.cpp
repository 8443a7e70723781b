#include "cpu/workspace.hpp"

#include <new>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {

void Workspace::reserve(int workers, std::size_t bytes, std::size_t shared_bytes) {
  bytes = (bytes + 127) / 64 * 64 + 64;  // a line between workers
  if (bytes < worker_bytes_) bytes = worker_bytes_;
  try {
    const std::size_t all = bytes * static_cast<std::size_t>(workers) + 64;
    if (memory_.size() < all) memory_.resize(all);
    worker_bytes_ = bytes;
    if (shared_memory_.size() < shared_bytes + 64) shared_memory_.resize(shared_bytes + 64);
  } catch (const std::bad_alloc&) {
    throw OutOfMemory(str("attention workspace of ", workers, " workers x ", bytes, " bytes + ", shared_bytes,
                          " bytes of split contexts could not be allocated"));
  }
}

}  // namespace pagedcore::cpu
