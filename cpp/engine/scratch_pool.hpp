// Memory that sampling works in.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/grow_capacity.hpp"
#include "sampling/scratch.hpp"

namespace pagedcore {

/// Scratch for as many threads as ask for it at a time. Thread-safe.
class ScratchPool {
 public:
  /// One that nobody uses; a new one when there is none, which may throw std::bad_alloc.
  std::unique_ptr<sampling::Scratch> take();
  /// `failed`: there was no memory for what it had to hold. It is then the last that is taken again.
  void give(std::unique_ptr<sampling::Scratch> scratch, bool failed = false) noexcept;

 private:
  std::mutex mutex_;
  std::size_t made_ = 0;
  std::vector<std::unique_ptr<sampling::Scratch>> free_;  // with room for all
};

inline std::unique_ptr<sampling::Scratch> ScratchPool::take() {
  const std::lock_guard lock(mutex_);
  if (!free_.empty()) {
    std::unique_ptr<sampling::Scratch> scratch = std::move(free_.back());
    free_.pop_back();
    return scratch;
  }
  grow_capacity(free_, made_ + 1);
  auto made = std::make_unique<sampling::Scratch>();
  ++made_;
  return made;
}

inline void ScratchPool::give(std::unique_ptr<sampling::Scratch> scratch, bool failed) noexcept {
  const std::lock_guard lock(mutex_);
  free_.insert(failed ? free_.begin() : free_.end(), std::move(scratch));
}

}  // namespace pagedcore
