// The state behind KvCacheManager and KvScratch.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kv/block_pool.hpp"
#include "kv/block_table.hpp"
#include "kv/flat_map.hpp"
#include "kv/prefix_index.hpp"
#include "pagedcore/kv_cache.hpp"

namespace pagedcore {

struct KvCacheManager::Impl {
  explicit Impl(const KvCacheConfig& config);

  std::uint32_t blocks_for(std::uint64_t tokens) const noexcept;
  bool is_partial(std::uint32_t length) const noexcept { return length % config.block_size != 0; }
  const kv::BlockTable& table(SequenceId seq) const;
  kv::BlockTable& table(SequenceId seq);
  kv::BlockTable& new_table(SequenceId seq, std::size_t num_blocks);
  BlockId take();
  void withdraw(BlockId block);
  void verify(const PrefixMatch& match, std::uint64_t salt) const;

  KvCacheConfig config;
  kv::BlockPool pool;
  std::optional<kv::PrefixIndex> index;  // when prefix caching is on
  std::vector<kv::BlockTable> tables;    // slots; a slot keeps its memory for the next sequence
  std::vector<std::uint32_t> free_slots;
  kv::FlatMap<std::uint32_t> slots;  // SequenceId -> slot
};

}  // namespace pagedcore
