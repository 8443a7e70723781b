#include "kv/buddy_allocator.hpp"

#include <bit>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::kv {

BuddyAllocator::BuddyAllocator(std::uint32_t num_blocks, std::uint32_t max_order)
    : size_(num_blocks), max_order_(max_order), prev_(num_blocks), next_(num_blocks), free_order_(num_blocks) {
  heads_.fill(kNone);
  std::vector<Chunk> chunks;
  for (std::uint32_t first = 0, order = max_order; first < num_blocks;) {
    while ((1u << order) > num_blocks - first) --order;
    chunks.push_back({first, order});
    first += 1u << order;
  }
  while (!chunks.empty()) {  // the lowest comes out first
    push(chunks.back());
    chunks.pop_back();
  }
}

std::uint32_t BuddyAllocator::order_of(std::uint32_t num_blocks) noexcept {
  return num_blocks <= 1 ? 0 : static_cast<std::uint32_t>(std::bit_width(num_blocks - 1));
}

bool BuddyAllocator::take(Counts& counts, std::uint32_t order) noexcept {
  std::uint32_t from = order;
  while (from < counts.size() && counts[from] == 0) ++from;
  if (from >= counts.size()) return false;
  --counts[from];
  while (from > order) ++counts[--from];
  return true;
}

Chunk BuddyAllocator::allocate(std::uint32_t order) {
  std::uint32_t from = order;
  while (from <= max_order_ && counts_[from] == 0) ++from;
  if (from > max_order_) throw Corrupt(str("no chunk of 2^", order, " blocks is free, which was tried before"));
  Chunk chunk{heads_[from], from};
  remove(chunk);
  while (chunk.order > order) {  // keep the low half
    --chunk.order;
    push({chunk.first + chunk.size(), chunk.order});
  }
  return chunk;
}

void BuddyAllocator::free(Chunk chunk) noexcept {
  while (chunk.order < max_order_) {
    const std::uint32_t buddy = chunk.first ^ chunk.size();
    if (buddy >= size_ || free_order_[buddy] != chunk.order + 1) break;
    remove({buddy, chunk.order});
    chunk.first = chunk.first < buddy ? chunk.first : buddy;
    ++chunk.order;
  }
  push(chunk);
}

std::uint32_t BuddyAllocator::available() const noexcept {
  std::uint32_t blocks = 0;
  for (std::uint32_t order = 0; order <= max_order_; ++order) blocks += counts_[order] << order;
  return blocks;
}

void BuddyAllocator::check() const {
  for (std::uint32_t order = 0; order < counts_.size(); ++order) {
    std::uint32_t count = 0;
    for (std::uint32_t first = heads_[order]; first != kNone; first = next_[first]) {
      if (++count > counts_[order]) throw Corrupt(str("the list of free chunks of 2^", order, " blocks has no end"));
      if (free_order_[first] != order + 1) throw Corrupt(str("block ", first, " begins no free chunk"));
    }
    if (count != counts_[order]) throw Corrupt(str("free chunks of 2^", order, " blocks are miscounted"));
  }
}

void BuddyAllocator::push(Chunk chunk) noexcept {
  std::uint32_t& head = heads_[chunk.order];
  prev_[chunk.first] = kNone;
  next_[chunk.first] = head;
  if (head != kNone) prev_[head] = chunk.first;
  head = chunk.first;
  free_order_[chunk.first] = static_cast<std::uint8_t>(chunk.order + 1);
  ++counts_[chunk.order];
}

void BuddyAllocator::remove(Chunk chunk) noexcept {
  const std::uint32_t prev = prev_[chunk.first], next = next_[chunk.first];
  (prev != kNone ? next_[prev] : heads_[chunk.order]) = next;
  if (next != kNone) prev_[next] = prev;
  free_order_[chunk.first] = 0;
  --counts_[chunk.order];
}

}  // namespace pagedcore::kv
