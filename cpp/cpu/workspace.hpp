// Workspace: scratch memory of an operation's workers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pagedcore::cpu {

/// Memory that attention needs besides the storage: per-worker rows and the open states of split contexts. Grown before
/// a parallel part starts, kept for the life of the storage.
class Workspace {
 public:
  /// At least `bytes` for each of `workers`; contents undefined. Throws OutOfMemory.
  void reserve(int workers, std::size_t bytes, std::size_t shared_bytes);
  char* of(int worker) noexcept { return aligned(memory_) + static_cast<std::size_t>(worker) * worker_bytes_; }
  char* shared() noexcept { return aligned(shared_memory_); }

 private:
  static char* aligned(std::vector<char>& v) noexcept {
    return reinterpret_cast<char*>((reinterpret_cast<std::uintptr_t>(v.data()) + 63) & ~std::uintptr_t{63});
  }
  std::vector<char> memory_, shared_memory_;
  std::size_t worker_bytes_ = 0;
};

}  // namespace pagedcore::cpu
