#include "backend/arena.hpp"

#include <algorithm>
#include <cassert>
#include <iterator>

namespace pagedcore::cuda {
namespace {

std::size_t rounded(std::size_t bytes) {
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

}  // namespace

Arena::Arena(std::size_t bytes) : capacity_(bytes / kAlignment * kAlignment) {
  if (capacity_ > 0) gaps_[0] = capacity_;
}

std::optional<std::size_t> Arena::take(std::size_t bytes) {
  if (bytes > capacity_) return std::nullopt;
  const std::size_t size = rounded(bytes);
  auto best = gaps_.end();
  for (auto gap = gaps_.begin(); gap != gaps_.end(); ++gap) {
    if (gap->second >= size && (best == gaps_.end() || gap->second < best->second)) best = gap;
  }
  if (best == gaps_.end()) return std::nullopt;
  const auto [offset, gap_bytes] = *best;
  taken_[offset] = size;
  if (gap_bytes > size) gaps_[offset + size] = gap_bytes - size;
  gaps_.erase(offset);
  used_ += size;
  return offset;
}

void Arena::give_back(std::size_t offset) noexcept {
  const auto taken = taken_.find(offset);
  assert(taken != taken_.end());
  // The node moves over, so that giving back needs no memory.
  auto node = taken_.extract(taken);
  used_ -= node.mapped();
  const auto after = gaps_.find(offset + node.mapped());
  if (after != gaps_.end()) {
    node.mapped() += after->second;
    gaps_.erase(after);
  }
  const auto next = gaps_.lower_bound(offset);
  if (next != gaps_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      before->second += node.mapped();
      return;
    }
  }
  gaps_.insert(next, std::move(node));
}

std::size_t Arena::largest_gap() const noexcept {
  std::size_t largest = 0;
  for (const auto& [offset, bytes] : gaps_) largest = std::max(largest, bytes);
  return largest;
}

}  // namespace pagedcore::cuda
