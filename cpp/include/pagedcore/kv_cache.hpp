// The KV cache manager: block tables over a pool of physical blocks (PagedAttention, section 4.2), with copy-on-write
// sharing (4.4) and an automatic prefix cache. Logic only: it hands out block ids and never touches a tensor.
//
// Three primitives carry everything (section 5.2): append, fork, free. A sequence has a *length*, the number of token
// slots its table has reserved, and the caller writes the slots that append() made writable before anything reads them.
//
// Not thread-safe: one thread owns a manager. Calls that throw have changed nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore {

/// A hash of the `count` tokens of a block, started from `seed` (which stands for the blocks before). Prefix hits are
/// verified token by token, so a bad hash costs time and never correctness; a keyed one resists crafted collisions.
using PrefixHash = std::uint64_t (*)(std::uint64_t seed, const TokenId* tokens, std::size_t count) noexcept;

struct KvCacheConfig {
  std::uint32_t num_blocks = 0;   // in [1, 2^32 - 2]
  std::uint32_t block_size = 16;  // tokens per block, in [1, 65536]
  bool enable_prefix_caching = true;
  PrefixHash prefix_hash = nullptr;  // null: the built-in one
};

/// Where every block is. free + cached + in_flight + used == num_blocks at all times.
struct KvCacheCounts {
  std::uint32_t total = 0;
  std::uint32_t free = 0;       // holds nothing of use
  std::uint32_t cached = 0;     // referenced by no sequence, kept for prefix hits, reusable at once
  std::uint32_t in_flight = 0;  // freed, but a step that may read it has not completed
  std::uint32_t used = 0;       // referenced by one or more sequences
  std::uint32_t shared = 0;     // of the used: referenced by more than one
};

/// Blocks whose contents equal the first `num_tokens` tokens of a prompt. Valid until the manager next changes.
struct PrefixMatch {
  std::vector<BlockId> blocks;   // full blocks in order, each verified token by token
  std::uint32_t num_tokens = 0;  // blocks.size() * block_size
};

/// A scratch copy of the manager's arithmetic: what would be available after some frees, holds and takes. Planning
/// tries its decisions here and applies them to the manager only once the whole plan is known to fit.
class PAGEDCORE_API KvScratch {
 public:
  ~KvScratch();
  KvScratch(KvScratch&&) noexcept;
  KvScratch& operator=(KvScratch&&) noexcept;

  /// Blocks that could still be taken.
  std::uint32_t available() const noexcept;
  /// As KvCacheManager::append(seq, length): takes what it would take, or returns false and changes nothing.
  bool append(SequenceId seq, std::uint32_t length);
  /// As KvCacheManager::create() with this match followed by append(length): holds the matched blocks and takes the
  /// rest. False also when an append() tried here is going to overwrite a matched block. Apply all creations before the
  /// appends, so that no append evicts what a match found.
  bool create(const PrefixMatch& match, std::uint32_t length);
  /// As KvCacheManager::fork() of a parent at num_tokens followed by append(length).
  bool fork(SequenceId parent, std::uint32_t num_tokens, std::uint32_t length);
  /// As KvCacheManager::free(seq, last_reader).
  void free(SequenceId seq, StepId last_reader);

 private:
  friend class KvCacheManager;
  struct Impl;
  explicit KvScratch(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

class PAGEDCORE_API KvCacheManager {
 public:
  /// Throws InvalidArgument for sizes outside the documented ranges.
  explicit KvCacheManager(const KvCacheConfig& config);
  ~KvCacheManager();
  KvCacheManager(KvCacheManager&&) noexcept;
  KvCacheManager& operator=(KvCacheManager&&) noexcept;

  const KvCacheConfig& config() const noexcept;
  KvCacheCounts counts() const noexcept;
  /// Blocks that append() could take now: free + cached.
  std::uint32_t available() const noexcept;
  std::uint32_t blocks_for(std::uint64_t tokens) const noexcept;

  /// The longest cached prefix of `tokens` in whole blocks, at most `max_tokens`. Tenants with different salts never
  /// share.
  PrefixMatch match_prefix(std::span<const TokenId> tokens, std::uint64_t salt, std::uint32_t max_tokens) const;

  /// A new sequence whose table starts with the matched blocks (references taken) and whose length is match.num_tokens.
  /// `seq` must be new. `salt` joins the keys under which its blocks are published.
  void create(SequenceId seq, std::uint64_t salt, const PrefixMatch& match);

  /// Gets the host memory that append(seq, length) will need, so that it can only fail for lack of blocks.
  void reserve(SequenceId seq, std::uint32_t length);

  /// Makes the slots up to `length` writable: takes new blocks, and for a shared last block that is going to be written
  /// appends a copy to `copies` (its filled tokens only) and replaces it. Throws OutOfMemory when blocks are short.
  void append(SequenceId seq, std::uint32_t length, std::vector<BlockCopy>& copies);

  /// `child` (new) shares the parent's blocks that cover the first `num_tokens` tokens, num_tokens <= the parent's
  /// length.
  void fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens);

  /// Records that the first `num_computed` slots hold the KV of `tokens` (at least that many): full blocks enter the
  /// prefix cache. `tokens` must extend what was published for this sequence before.
  void publish(SequenceId seq, std::span<const TokenId> tokens, std::uint32_t num_computed);

  /// Drops the sequence. Blocks without further references become free or cached once `last_reader` has completed: the
  /// last step that may read, or copy from, any of its blocks.
  void free(SequenceId seq, StepId last_reader);

  /// Every step up to and including `step` has completed: blocks fenced by it become reusable.
  void complete(StepId step) noexcept;

  /// Forgets all cached prefixes. Used blocks stay with their sequences, which publish nothing more: what was computed
  /// before the call never comes back.
  void clear_prefix_cache() noexcept;

  bool contains(SequenceId seq) const noexcept;
  std::uint32_t length(SequenceId seq) const;
  /// Physical blocks of the sequence, logical order. Valid until the manager next changes.
  std::span<const BlockId> block_table(SequenceId seq) const;
  /// Number of tables that reference a block.
  std::uint32_t references(BlockId block) const;

  KvScratch scratch() const;

  /// Verifies every invariant in O(blocks + tables); throws Corrupt naming the first that is broken.
  void check() const;

 private:
  friend class KvScratch;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pagedcore
