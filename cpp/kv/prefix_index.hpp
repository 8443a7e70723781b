// The prefix index: from (the blocks before, the tokens of one block) to the blocks that hold their KV.
//
// A block's KV depends on every token before it, so a key is the *identity of the parent block* plus the block's own
// tokens: by induction equal keys mean equal prefixes. A 64-bit hash finds full blocks and is never trusted: tokens,
// parent and the parent's stamp are compared, so a bad hash costs time and never correctness. The blocks that continue
// the same parent are also linked as siblings: walking them finds the one with which a prompt has most tokens in
// common, and the partly filled blocks in which sequences ended.
//
// A stamp is the identity of one publication. Evicting a block retires its stamp, which makes its children unreachable
// (they age out of the reuse list by themselves) even when the same physical block is published again.
//
// With several groups of layers an entry is the block of group 0, and the blocks of the other groups are attached to
// it. They come and go on their own: behind a window they are released, and evicted, earlier.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kv/event_log.hpp"
#include "pagedcore/kv_cache.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore::kv {

/// What a block continues: a published block, or the empty prefix of one tenant.
struct PrefixLink {
  BlockId block = kNoBlock;
  std::uint64_t stamp = 0;  // of the block's publication; for the empty prefix the tenant's salt

  static PrefixLink root(std::uint64_t salt) noexcept { return {kNoBlock, salt}; }
  friend bool operator==(const PrefixLink&, const PrefixLink&) = default;
};

class PrefixIndex {
 public:
  PrefixIndex(std::uint32_t num_blocks, std::uint32_t block_size, std::uint32_t num_groups, PrefixHash hash,
              std::uint32_t max_events);

  /// The block that continues `parent` with these block_size tokens, or kNoBlock.
  BlockId find(PrefixLink parent, std::span<const TokenId> tokens) const noexcept;
  struct Partial {
    BlockId block = kNoBlock;
    std::uint32_t num_tokens = 0;  // that it has in common
  };
  /// Among the latest blocks that continue `parent` the one that begins with most of these tokens.
  Partial find_partial(PrefixLink parent, std::span<const TokenId> tokens) const noexcept;

  /// Publishes `block`, which must not be in the index, under a key that find() does not know. Fewer than block_size
  /// tokens make an entry that only find_partial() finds.
  void insert(BlockId block, PrefixLink parent, std::span<const TokenId> tokens) noexcept;
  void erase(BlockId block) noexcept;
  void clear() noexcept;

  bool contains(BlockId block) const noexcept { return stamps_[raw(block)] != 0; }
  std::uint32_t num_tokens(BlockId block) const noexcept { return counts_[raw(block)]; }
  PrefixLink link(BlockId block) const noexcept { return {block, stamps_[raw(block)]}; }
  PrefixLink parent(BlockId block) const noexcept { return parents_[raw(block)]; }
  /// Whether blocks published under this link can still be found.
  bool is_alive(PrefixLink link) const noexcept { return link.block == kNoBlock || this->link(link.block) == link; }

  // The blocks of other groups. An entry that is erased must have none: detach() them first.
  void attach(BlockId entry, std::uint32_t group, BlockId block) noexcept;
  void detach(BlockId block) noexcept;
  /// Of a published block in this group (group 0: itself), or kNoBlock.
  BlockId attached(BlockId entry, std::uint32_t group) const noexcept {
    return group == 0 ? entry : attached_[std::size_t{group - 1} * stamps_.size() + raw(entry)];
  }
  bool is_attached(BlockId block) const noexcept { return !owners_.empty() && owners_[raw(block)] != kNoBlock; }

  EventLog& events() noexcept { return events_; }

  void check() const;

 private:
  static constexpr std::uint32_t kNone = 0xffffffffu;

  std::size_t home(std::uint64_t hash) const noexcept { return static_cast<std::size_t>(hash >> shift_); }
  std::size_t next(std::size_t at) const noexcept { return (at + 1) & (table_.size() - 1); }
  std::uint64_t hash_of(PrefixLink parent, std::span<const TokenId> tokens) const noexcept;
  std::span<const TokenId> tokens(BlockId block) const noexcept {
    return {tokens_.data() + std::size_t{raw(block)} * block_size_, counts_[raw(block)]};
  }
  std::uint32_t& first_child(PrefixLink parent) noexcept;

  std::uint32_t block_size_;
  std::uint32_t num_groups_;
  PrefixHash hash_;
  int shift_;
  std::uint64_t next_stamp_ = 1;
  std::uint32_t size_ = 0;                 // entries of table_
  std::vector<BlockId> table_;             // full blocks; open addressing, linear probing, at most half full
  std::array<std::uint32_t, 1024> roots_;  // first children of empty prefixes, of tenants by hash
  // Per block:
  std::vector<std::uint64_t> stamps_;  // 0: not in the index
  std::vector<std::uint64_t> hashes_;
  std::vector<PrefixLink> parents_;
  std::vector<TokenId> tokens_;                          // [num_blocks][block_size]
  std::vector<std::uint32_t> counts_;                    // tokens of the block
  std::vector<std::uint32_t> children_, older_, newer_;  // siblings, the latest first; kNone: no more
  std::vector<BlockId> attached_;                        // [groups - 1][num_blocks], of entries
  std::vector<BlockId> owners_;                          // [num_blocks], of attached blocks; empty with one group
  EventLog events_;
};

}  // namespace pagedcore::kv
