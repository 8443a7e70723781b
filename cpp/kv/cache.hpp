// One interface, two implementations: kv::PagedCache (paged.hpp) takes blocks as sequences grow, kv::ReservedCache
// (reserved.hpp) sets a chunk aside for each. Behind KvCacheManager, whose comments say what each call means.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/grow_capacity.hpp"
#include "kv/block_pool.hpp"
#include "kv/block_table.hpp"
#include "kv/flat_map.hpp"
#include "pagedcore/kv_cache.hpp"

namespace pagedcore::kv {

/// The pool and the tables of sequences by id, which both ways of allocation have in common, and what differs.
class Cache {
 public:
  explicit Cache(const KvCacheConfig& config);
  virtual ~Cache();
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  virtual KvTraits traits() const noexcept = 0;
  virtual KvCacheCounts counts() const noexcept { return pool.counts(); }
  virtual std::uint32_t reservation(std::uint32_t prompt, std::uint32_t max_output) const noexcept = 0;
  virtual KvSetAside set_aside(std::uint32_t, std::uint32_t, std::uint32_t) const noexcept { return {}; }
  virtual std::string why_never(std::uint32_t, std::uint32_t, std::uint32_t) const { return {}; }
  virtual std::size_t most_copies(std::size_t sequences, std::size_t blocks) const noexcept = 0;

  virtual PrefixMatch match_prefix(std::span<const TokenId>, std::uint64_t, std::uint32_t, bool) const { return {}; }
  virtual std::vector<BlockId> cached_blocks(std::span<const TokenId>, std::uint64_t) const { return {}; }
  virtual std::vector<BlockId> import_prefix(std::span<const TokenId>, std::uint64_t, std::span<const std::uint8_t>) {
    return {};
  }
  virtual void prepare(SequenceId seq, std::uint32_t length, std::uint64_t salt, const PrefixMatch& match,
                       const KvGroup& group) = 0;
  virtual void start(BlockTable& table, std::uint64_t salt, const PrefixMatch& match, const KvGroup& group) = 0;
  virtual void prepare_fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens) = 0;
  virtual void start_fork(BlockTable& parent, BlockTable& child, std::uint32_t num_tokens,
                          const std::uint64_t* salt) = 0;
  virtual void append(BlockTable& table, std::uint32_t length, std::vector<BlockCopy>& copies, StepId reader) = 0;
  /// free(), less the table itself.
  virtual void release(BlockTable& table, StepId last_reader) = 0;
  virtual void complete(StepId step) noexcept { pool.complete(step); }

  virtual void publish(BlockTable&, std::span<const TokenId>, std::uint32_t, bool, std::uint32_t) {}
  virtual std::uint32_t published(const BlockTable&) const noexcept { return kMostLength; }
  virtual void clear_prefix_cache() noexcept {}
  virtual std::vector<CacheEvent> take_events() { return {}; }
  virtual void swap_out(std::span<const SequenceId> group, std::vector<BlockSwap>& moves, StepId last_reader) = 0;
  virtual void swap_in(std::span<const SequenceId> group, std::vector<BlockSwap>& moves) = 0;

  virtual std::unique_ptr<Scratch> scratch() const = 0;
  void check() const;

  std::uint32_t blocks_for(std::uint64_t tokens) const noexcept;
  bool is_partial(std::uint32_t length) const noexcept { return length % config.block_size != 0; }
  /// The first logical block that a row at position `next` or behind can see in this group of layers.
  std::uint32_t first_visible(std::uint32_t group, std::uint32_t next) const noexcept;
  const BlockTable& table(SequenceId seq) const;
  BlockTable& table(SequenceId seq);
  BlockTable& resident_table(SequenceId seq);  // throws when it is swapped out
  BlockTable& new_table(SequenceId seq, std::size_t num_blocks);
  void drop_table(SequenceId seq) noexcept;

  KvCacheConfig config;
  std::uint32_t groups;                // of layers
  std::vector<std::uint32_t> windows;  // [groups], 0: full context
  bool has_windows;
  BlockPool pool;
  FlatMap<std::uint32_t> slots;  // SequenceId -> index of its table
  std::uint64_t changes = 0;     // of tables and blocks, so far: a scratch is of one state

 protected:
  static void refuse_swapped(const BlockTable& table);
  /// Throws InvalidArgument for a sequence that a group names twice. Allocates nothing.
  void refuse_twice(std::span<const SequenceId> group);
  void refuse_long_fork(const BlockTable& parent, std::uint32_t num_tokens) const;
  /// What only one implementation knows, for check().
  virtual void check_rest() const = 0;
  virtual bool has_content(BlockId block) const = 0;

  std::vector<BlockTable> tables;  // a slot keeps its memory for the next sequence
  std::vector<std::uint32_t> free_slots;
};

/// Behind KvScratch, likewise.
class Scratch {
 public:
  explicit Scratch(const Cache& cache) : available(cache.pool.available()), cache_(cache), changes_(cache.changes) {}
  virtual ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  virtual bool append(SequenceId seq, std::uint32_t length) = 0;
  virtual bool create(const PrefixMatch& match, std::uint32_t length, std::uint64_t spare, const KvGroup& group) = 0;
  virtual bool fork(SequenceId parent, std::uint32_t num_tokens, std::uint32_t length, std::uint64_t spare) = 0;
  virtual void free(SequenceId seq, StepId last_reader) = 0;
  virtual bool swap_out(std::span<const SequenceId> group, StepId last_reader) = 0;
  virtual bool swap_in(std::span<const SequenceId> group, std::uint64_t spare) = 0;

  /// Throws InvalidArgument once the cache is no longer what this was made from.
  void refuse_if_stale() const;

  std::uint32_t available;  // blocks

 private:
  const Cache& cache_;
  const std::uint64_t changes_;
};

}  // namespace pagedcore::kv
