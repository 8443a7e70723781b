#include "kv/block_pool.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/snapshot.hpp"

namespace pagedcore::kv {

BlockPool::BlockPool(std::uint32_t num_blocks)
    : size_(num_blocks),
      prev_(std::size_t{num_blocks} + 2),
      next_(std::size_t{num_blocks} + 2),
      refs_(num_blocks),
      borrows_(num_blocks),
      fence_(num_blocks),
      place_(num_blocks, Place::reusable),
      has_content_(num_blocks),
      free_(num_blocks) {
  for (const std::uint32_t list : {reuse_list(), flight_list()}) prev_[list] = next_[list] = list;
  for (std::uint32_t block = 0; block < size_; ++block) link(block, prev_[reuse_list()]);
}

KvCacheCounts BlockPool::counts() const noexcept {
  return {.total = size_,
          .free = free_,
          .cached = cached_,
          .in_flight = in_flight_,
          .used = size_ - free_ - cached_ - in_flight_,
          .shared = shared_};
}

std::uint8_t BlockPool::cell(BlockId block) const {
  const std::uint32_t i = index(block);
  if (place_[i] == Place::in_flight) return kInFlightCell;
  if (place_[i] == Place::reusable) return has_content_[i] != 0 ? kCachedCell : kFreeCell;
  return static_cast<std::uint8_t>(std::min(refs_[i] + kOwnedCell - 1, 255u));
}

BlockId BlockPool::take() {
  const std::uint32_t block = next_[reuse_list()];
  if (block == reuse_list()) {
    throw Corrupt(str("a block was taken from a pool of ", size_, " that has none left; ask available() first"));
  }
  if (has_content_[block] != 0) {
    throw Corrupt(str("block ", block, " was taken while the prefix index still points to it; erase it there first"));
  }
  leave(block);
  refs_[block] = 1;
  fence_[block] = 0;
  return BlockId{block};
}

void BlockPool::hold(BlockId id) {
  const std::uint32_t block = index(id);
  if (refs_[block] == 0) leave(block);
  if (++refs_[block] == 2) ++shared_;
}

void BlockPool::release(BlockId id, StepId last_reader) {
  const std::uint32_t block = index(id);
  if (refs_[block] == 0) {
    throw Corrupt(str("block ", block, " is released without a reference (a double free); its owner kept a stale id"));
  }
  // Another owner may have been read by a later step than the one that happens to release last.
  fence_[block] = std::max(fence_[block], raw(last_reader));
  if (--refs_[block] == 1) --shared_;
  if (refs_[block] != 0) return;
  if (fence_[block] <= completed_) {
    make_reusable(block);
    return;
  }
  // Fences grow along the FIFO: one that is older than its predecessor's waits with it, which is safe.
  const std::uint32_t tail = prev_[flight_list()];
  if (tail != flight_list()) fence_[block] = std::max(fence_[block], fence_[tail]);
  place_[block] = Place::in_flight;
  ++in_flight_;
  link(block, tail);
}

void BlockPool::borrow(BlockId block) {
  hold(block);
  ++borrows_[raw(block)];
  ++borrowed_;
}

void BlockPool::give_back(BlockId block, StepId last_reader) {
  if (borrows_[index(block)] == 0) throw Corrupt(str("block ", raw(block), " is given back and was not borrowed"));
  --borrows_[raw(block)];
  --borrowed_;
  release(block, last_reader);
}

void BlockPool::set_cached(BlockId id, bool cached) {
  const std::uint32_t block = index(id);
  if ((has_content_[block] != 0) == cached) return;
  if (place_[block] != Place::reusable) {
    has_content_[block] = cached;
    return;
  }
  leave(block);
  has_content_[block] = cached;
  make_reusable(block);
}

void BlockPool::complete(StepId step) noexcept {
  completed_ = std::max(completed_, raw(step));
  for (std::uint32_t block = next_[flight_list()]; block != flight_list() && fence_[block] <= completed_;
       block = next_[flight_list()]) {
    leave(block);
    make_reusable(block);
  }
}

std::uint32_t BlockPool::index(BlockId block) const {
  if (raw(block) >= size_) {
    throw Corrupt(str("block id ", raw(block), " is outside the pool of ", size_, " blocks"));
  }
  return raw(block);
}

void BlockPool::link(std::uint32_t block, std::uint32_t after) noexcept {
  prev_[block] = after;
  next_[block] = next_[after];
  prev_[next_[block]] = block;
  next_[after] = block;
}

void BlockPool::unlink(std::uint32_t block) noexcept {
  next_[prev_[block]] = next_[block];
  prev_[next_[block]] = prev_[block];
}

/// Out of whichever list an unreferenced block is in.
void BlockPool::leave(std::uint32_t block) noexcept {
  unlink(block);
  if (place_[block] == Place::in_flight) {
    --in_flight_;
  } else {
    --(has_content_[block] != 0 ? cached_ : free_);
  }
  place_[block] = Place::used;
}

void BlockPool::make_reusable(std::uint32_t block) noexcept {
  const bool cached = has_content_[block] != 0;
  place_[block] = Place::reusable;
  ++(cached ? cached_ : free_);
  link(block, cached ? prev_[reuse_list()] : reuse_list());
}

std::uint32_t BlockPool::check_list(std::uint32_t sentinel, Place place) const {
  std::uint32_t count = 0;
  bool cached_before = false;
  std::uint64_t fence_before = 0;
  for (std::uint32_t block = next_[sentinel]; block != sentinel; block = next_[block]) {
    if (block >= size_ || ++count > size_) throw Corrupt("a block list has lost its end");
    if (prev_[next_[block]] != block) throw Corrupt(str("the links around block ", block, " disagree"));
    if (place_[block] != place || refs_[block] != 0) throw Corrupt(str("block ", block, " is in a list and elsewhere"));
    if (place == Place::reusable) {
      if (cached_before && has_content_[block] == 0) throw Corrupt(str("free block ", block, " is behind cached ones"));
      cached_before = has_content_[block] != 0;
    } else {
      if (fence_[block] <= completed_) throw Corrupt(str("block ", block, " waits for a completed step"));
      if (fence_[block] < fence_before) throw Corrupt(str("block ", block, " waits behind a later step"));
      fence_before = fence_[block];
    }
  }
  return count;
}

void BlockPool::check() const {
  if (check_list(reuse_list(), Place::reusable) != available()) throw Corrupt("the reuse list's count is wrong");
  if (check_list(flight_list(), Place::in_flight) != in_flight_) throw Corrupt("the in-flight count is wrong");
  KvCacheCounts seen{.total = size_};
  for (std::uint32_t block = 0; block < size_; ++block) {
    if ((place_[block] == Place::used) != (refs_[block] > 0)) {
      throw Corrupt(str("block ", block, " has ", refs_[block], " references, which contradicts its place"));
    }
    if (borrows_[block] > refs_[block]) throw Corrupt(str("block ", block, " is borrowed more often than referenced"));
    seen.used += refs_[block] > 0;
    seen.shared += refs_[block] > 1;
    seen.cached += place_[block] == Place::reusable && has_content_[block] != 0;
  }
  const KvCacheCounts now = counts();
  if (now.used != seen.used || now.shared != seen.shared || now.cached != seen.cached) {
    throw Corrupt(str("block counts are wrong: used ", now.used, " for ", seen.used, ", shared ", now.shared, " for ",
                      seen.shared, ", cached ", now.cached, " for ", seen.cached));
  }
}

}  // namespace pagedcore::kv
