// The pool of physical blocks: reference counts, the reuse list, and the blocks that wait for a step in flight.
//
// Every block is in exactly one place:
//   used       one or more tables reference it
//   reusable   no reference; in the reuse list. Blocks without content of value are at the front and go first; blocks
//              that the prefix index knows ("cached") are at the back, least recently released first
//   in flight  no reference, but a step that may read it has not completed; a FIFO
// Lists are links in flat arrays, so that a prefix hit removes a block from the middle in O(1).
#pragma once

#include <cstdint>
#include <vector>

#include "pagedcore/kv_cache.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore::kv {

class BlockPool {
 public:
  explicit BlockPool(std::uint32_t num_blocks);

  std::uint32_t size() const noexcept { return size_; }
  /// Blocks that take() can still return.
  std::uint32_t available() const noexcept { return free_ + cached_; }
  KvCacheCounts counts() const noexcept;
  /// Blocks at the front of a fresh pool are taken in order of their ids.
  BlockId next() const noexcept { return BlockId{next_[reuse_list()]}; }

  // The following throw Corrupt for an id outside the pool, for a release without a reference, and for a take from an
  // empty list: the caller's books are wrong, and going on would hand one block to two owners.

  /// Takes next() with one reference. The caller has removed it from the prefix index.
  BlockId take();
  /// One more reference; revives a block that is reusable or in flight.
  void hold(BlockId block);
  /// One reference less. The last one sends the block to the reuse list once `last_reader`, and the last reader named
  /// by any other release since the block was taken, have completed.
  void release(BlockId block, StepId last_reader);
  /// As hold() and release(), for a reader that is going to copy from the block and never writes to it: holders() does
  /// not count it.
  void borrow(BlockId block);
  void give_back(BlockId block, StepId last_reader);
  /// The block's contents are (not) in the prefix index.
  void set_cached(BlockId block, bool cached);

  void complete(StepId step) noexcept;

  std::uint32_t references(BlockId block) const { return refs_[index(block)]; }
  std::uint32_t holders(BlockId block) const {
    // Mostly nothing is borrowed, and the array need not be read.
    return borrowed_ == 0 ? refs_[index(block)] : refs_[index(block)] - borrows_[index(block)];
  }
  bool is_borrowed(BlockId block) const { return borrowed_ > 0 && borrows_[index(block)] > 0; }
  bool is_cached(BlockId block) const { return has_content_[index(block)] != 0; }
  /// Whether take() could return this block.
  bool is_reusable(BlockId block) const { return place_[index(block)] == Place::reusable; }
  /// As in EngineSnapshot::cells.
  std::uint8_t cell(BlockId block) const;
  /// Whether releasing the last reference behind `last_reader` would make the block reusable at once.
  bool is_unfenced(BlockId block, StepId last_reader) const {
    return raw(last_reader) <= completed_ && fence_[index(block)] <= completed_;
  }

  void check() const;

 private:
  enum class Place : std::uint8_t { used, reusable, in_flight };

  std::uint32_t index(BlockId block) const;
  // The sentinels of the two lists lie behind the blocks in prev_ and next_.
  std::uint32_t reuse_list() const noexcept { return size_; }
  std::uint32_t flight_list() const noexcept { return size_ + 1; }
  void link(std::uint32_t block, std::uint32_t after) noexcept;
  void unlink(std::uint32_t block) noexcept;
  void leave(std::uint32_t block) noexcept;
  void make_reusable(std::uint32_t block) noexcept;
  std::uint32_t check_list(std::uint32_t sentinel, Place place) const;

  std::uint32_t size_;
  std::vector<std::uint32_t> prev_, next_;  // [size + 2]
  std::vector<std::uint32_t> refs_;         // [size] borrows included
  std::vector<std::uint32_t> borrows_;      // [size]
  std::vector<std::uint64_t> fence_;        // [size] the last step that may read the block
  std::vector<Place> place_;                // [size]
  std::vector<std::uint8_t> has_content_;   // [size] in the prefix index
  std::uint64_t completed_ = 0;
  std::uint32_t free_ = 0, cached_ = 0, in_flight_ = 0, shared_ = 0;
  std::uint32_t borrowed_ = 0;  // sum of borrows_
};

}  // namespace pagedcore::kv
