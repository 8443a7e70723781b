// Memory that is read over and over: in huge pages where there are any.
#pragma once

#include <cstddef>
#include <memory>

namespace pagedcore::cpu {

struct FreeLarge {
  void operator()(std::byte* p) const noexcept;
};
using LargeMemory = std::unique_ptr<std::byte, FreeLarge>;

/// `bytes` at a multiple of 64, contents undefined; null where there is no memory.
LargeMemory large_memory(std::size_t bytes) noexcept;

/// Scratch of an operation's workers, kept for the next operation.
class Scratch {
 public:
  /// `bytes`, a multiple of 64, for each of `workers`; contents undefined. False where there is no memory: nothing has
  /// changed then.
  bool reserve(int workers, std::size_t bytes) noexcept;
  std::byte* of(int worker) const noexcept { return memory_.get() + static_cast<std::size_t>(worker) * worker_bytes_; }
  /// Likewise, for all workers together.
  bool reserve_shared(std::size_t bytes) noexcept { return grow(shared_, shared_size_, bytes); }
  std::byte* shared() const noexcept { return shared_.get(); }

 private:
  static bool grow(LargeMemory& memory, std::size_t& size, std::size_t bytes) noexcept;

  LargeMemory memory_, shared_;
  std::size_t size_ = 0, worker_bytes_ = 0, shared_size_ = 0;
};

}  // namespace pagedcore::cpu
