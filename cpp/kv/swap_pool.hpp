// The slots of the swap space (PagedAttention, section 4.5): who holds which. The lowest free slot is taken first, so
// that the fastest tier, which has the lowest slots, is used before the others.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <numeric>
#include <vector>

#include "pagedcore/types.hpp"

namespace pagedcore::kv {

class SwapPool {
 public:
  explicit SwapPool(std::uint32_t num_slots) : refs_(num_slots), blocks_(num_slots, kNoBlock), free_(num_slots) {
    std::iota(free_.begin(), free_.end(), 0u);  // ascending: a heap
  }

  std::uint32_t size() const noexcept { return static_cast<std::uint32_t>(refs_.size()); }
  std::uint32_t available() const noexcept { return static_cast<std::uint32_t>(free_.size()); }
  std::uint32_t references(SwapSlot slot) const noexcept { return refs_[raw(slot)]; }

  /// With one reference. The caller has asked available().
  SwapSlot take() noexcept {
    std::pop_heap(free_.begin(), free_.end(), std::greater<>{});
    const std::uint32_t slot = free_.back();
    free_.pop_back();
    refs_[slot] = 1;
    return SwapSlot{slot};
  }
  void hold(SwapSlot slot) noexcept { ++refs_[raw(slot)]; }
  void release(SwapSlot slot) noexcept {
    if (--refs_[raw(slot)] != 0) return;
    free_.push_back(raw(slot));  // within the capacity of the beginning
    std::push_heap(free_.begin(), free_.end(), std::greater<>{});
  }

  /// The block that a slot is being moved to, while its references are passed on one by one.
  BlockId& destination(SwapSlot slot) noexcept { return blocks_[raw(slot)]; }

 private:
  std::vector<std::uint32_t> refs_;  // [slots]
  std::vector<BlockId> blocks_;      // [slots]
  std::vector<std::uint32_t> free_;  // a heap, lowest first
};

}  // namespace pagedcore::kv
