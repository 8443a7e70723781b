// The prefix index: from (the blocks before, the tokens of one full block) to the block that holds their KV.
//
// A block's KV depends on every token before it, so a key is the *identity of the parent block* plus the block's own
// tokens: by induction equal keys mean equal prefixes. A 64-bit hash finds candidates and is never trusted: tokens,
// parent and the parent's stamp are compared, so a bad hash costs time and never correctness.
//
// A stamp is the identity of one publication. Evicting a block retires its stamp, which makes its children unreachable
// (they age out of the reuse list by themselves) even when the same physical block is published again.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

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
  PrefixIndex(std::uint32_t num_blocks, std::uint32_t block_size, PrefixHash hash);

  /// The block that continues `parent` with these block_size tokens, or kNoBlock.
  BlockId find(PrefixLink parent, std::span<const TokenId> tokens) const noexcept;
  /// Publishes `block`, which must not be in the index, under a key that find() does not know.
  void insert(BlockId block, PrefixLink parent, std::span<const TokenId> tokens) noexcept;
  void erase(BlockId block) noexcept;
  void clear() noexcept;

  bool contains(BlockId block) const noexcept { return stamps_[raw(block)] != 0; }
  PrefixLink link(BlockId block) const noexcept { return {block, stamps_[raw(block)]}; }
  PrefixLink parent(BlockId block) const noexcept { return parents_[raw(block)]; }
  /// Whether blocks published under this link can still be found.
  bool is_alive(PrefixLink link) const noexcept { return link.block == kNoBlock || this->link(link.block) == link; }

  void check() const;

 private:
  std::size_t home(std::uint64_t hash) const noexcept { return static_cast<std::size_t>(hash >> shift_); }
  std::size_t next(std::size_t at) const noexcept { return (at + 1) & (table_.size() - 1); }
  std::uint64_t hash_of(PrefixLink parent, std::span<const TokenId> tokens) const noexcept;
  std::span<const TokenId> tokens(BlockId block) const noexcept {
    return {tokens_.data() + std::size_t{raw(block)} * block_size_, block_size_};
  }

  std::uint32_t block_size_;
  PrefixHash hash_;
  int shift_;
  std::uint64_t next_stamp_ = 1;
  std::uint32_t size_ = 0;
  std::vector<BlockId> table_;  // open addressing, linear probing, at most half full
  // Per block:
  std::vector<std::uint64_t> stamps_;  // 0: not in the index
  std::vector<std::uint64_t> hashes_;
  std::vector<PrefixLink> parents_;
  std::vector<TokenId> tokens_;  // [num_blocks][block_size]
};

}  // namespace pagedcore::kv
