// The state behind KvCacheManager and KvScratch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "kv/block_pool.hpp"
#include "kv/block_table.hpp"
#include "kv/flat_map.hpp"
#include "kv/prefix_index.hpp"
#include "kv/reservations.hpp"
#include "kv/swap_pool.hpp"
#include "pagedcore/kv_cache.hpp"

namespace pagedcore::kv {

/// Room for `size` elements, growing geometrically: a sequence that grows by one reallocates O(log n) times.
template <class T>
void grow_capacity(std::vector<T>& vector, std::size_t size) {
  if (size > vector.capacity()) vector.reserve(std::max(size, 2 * vector.capacity()));
}

}  // namespace pagedcore::kv

namespace pagedcore {

// Hidden: else it would be exported with the class around it.
struct PAGEDCORE_HIDDEN KvCacheManager::Impl {
  explicit Impl(const KvCacheConfig& config);

  std::uint32_t blocks_for(std::uint64_t tokens) const noexcept;
  bool is_partial(std::uint32_t length) const noexcept { return length % config.block_size != 0; }
  /// The first logical block that a row at position `next` or behind can see in this group.
  std::uint32_t first_visible(std::uint32_t group, std::uint32_t next) const noexcept;
  const kv::BlockTable& table(SequenceId seq) const;
  kv::BlockTable& table(SequenceId seq);
  static void refuse_swapped(const kv::BlockTable& table);
  void append(kv::BlockTable& table, std::uint32_t length, std::vector<BlockCopy>& copies, StepId reader);
  kv::BlockTable& resident_table(SequenceId seq);  // throws when it is swapped out
  kv::BlockTable& new_table(SequenceId seq, std::size_t num_blocks);
  void drop_table(SequenceId seq) noexcept;
  void fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens, const std::uint64_t* salt);
  /// The common case of a decode: one more slot of a last block that nobody else can see.
  bool grows_in_place(const kv::BlockTable& table, std::uint32_t length) const {
    return groups == 1 && is_partial(table.length) && !table.borrows && !table.swapped && !table.lacks_chunk &&
           length <= table.blocks.size() * config.block_size && pool.is_exclusive(table.blocks.back());
  }
  template <class Holders>
  bool copies_last(const kv::BlockTable& table, Holders&& holders) const;
  BlockId take();
  // contiguous.cpp
  std::uint32_t reservation_order(std::uint32_t tokens) const noexcept;
  void append_reserved(kv::BlockTable& table, std::uint32_t length, std::vector<BlockCopy>& copies, StepId reader);
  bool is_published(BlockId block) const { return pool.is_cached(block); }
  void withdraw(BlockId block);
  void verify(const PrefixMatch& match, std::uint64_t salt) const;
  std::uint32_t trim_to_windows(const std::vector<BlockId>& entries, std::uint32_t num_tokens) const noexcept;
  bool publish_block(kv::BlockTable& table, std::uint32_t at, std::span<const TokenId> key);

  KvCacheConfig config;
  std::uint32_t groups;                // of layers
  std::vector<std::uint32_t> windows;  // [groups], 0: full context
  bool has_windows;
  kv::BlockPool pool;
  kv::SwapPool swap;
  std::optional<kv::PrefixIndex> index;          // when prefix caching is on
  std::optional<kv::Reservations> reservations;  // contiguous allocation
  std::vector<kv::BlockTable> tables;            // slots; a slot keeps its memory for the next sequence
  std::vector<std::uint32_t> free_slots;
  kv::FlatMap<std::uint32_t> slots;  // SequenceId -> slot
  std::vector<std::uint32_t> marks;  // [num_blocks] all 0 between calls: scratch of swap_out()
};

/// Whether the last block is copied, in all groups of layers, before it is written: in one of them it is shared (they
/// differ where a window has passed in a longer sequence), or somebody may have borrowed what would be overwritten,
/// because the block was longer in a sequence that is gone.
template <class Holders>
bool KvCacheManager::Impl::copies_last(const kv::BlockTable& table, Holders&& holders) const {
  bool copies = table.borrows;
  for (std::size_t i = table.blocks.size() - groups; i < table.blocks.size(); ++i) {
    const BlockId last = table.blocks[i];
    copies = copies || holders(last) > 1 || (pool.is_borrowed(last) && pool.is_cached(last));
  }
  return copies;
}

}  // namespace pagedcore
