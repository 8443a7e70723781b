// What a stored block is found by. A key is the SHA-256 of all that its bytes depend on: by induction along the chain,
// the identity of the engine (weights, description, numerics, block size), the adapter, the salt, and every token up to
// the block's last. Whoever finds a block compares its tokens all the same.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/sha256.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore::store {

using BlockKey = Digest;

/// What all chains of one engine have in common.
struct Identity {
  std::string text;  // for people: what it was made of
  Digest digest{};
};
Identity identity_of(std::string text);

/// Where a chain begins: what is shared under one salt, computed with one adapter.
struct ChainRoot {
  std::uint64_t salt = 0;
  std::string_view adapter{};  // the hash of its content; empty: none
};

BlockKey root_key(const Digest& identity, const ChainRoot& root) noexcept;
BlockKey next_key(const BlockKey& parent, std::span<const TokenId> tokens) noexcept;
/// Of the full blocks of `tokens`. [tokens.size() / block_size]
std::vector<BlockKey> chain_keys(const BlockKey& root, std::span<const TokenId> tokens, std::uint32_t block_size);

}  // namespace pagedcore::store
