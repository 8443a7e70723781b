#include "store/block_key.hpp"

#include <bit>
#include <utility>

namespace pagedcore::store {

static_assert(std::endian::native == std::endian::little, "keys and records are little-endian");

namespace {

/// Numbers as they lie in memory: little-endian.
template <class T>
void add_raw(Sha256Stream& hash, const T& value) noexcept {
  hash.add(std::as_bytes(std::span(&value, 1)));
}
void add_text(Sha256Stream& hash, std::string_view text) noexcept { hash.add(std::as_bytes(std::span(text))); }

}  // namespace

Identity identity_of(std::string text) {
  Sha256Stream hash;
  add_text(hash, "pagedcore kv identity 1\n");
  add_text(hash, text);
  return {std::move(text), hash.finish()};
}

BlockKey root_key(const Digest& identity, const ChainRoot& root) noexcept {
  const std::uint64_t adapter_bytes = root.adapter.size();
  Sha256Stream hash;
  add_text(hash, "root\n");
  add_raw(hash, identity);
  add_raw(hash, root.salt);
  add_raw(hash, adapter_bytes);
  add_text(hash, root.adapter);
  return hash.finish();
}

BlockKey next_key(const BlockKey& parent, std::span<const TokenId> tokens) noexcept {
  Sha256Stream hash;
  add_text(hash, "next\n");
  add_raw(hash, parent);
  hash.add(std::as_bytes(tokens));
  return hash.finish();
}

std::vector<BlockKey> chain_keys(const BlockKey& root, std::span<const TokenId> tokens, std::uint32_t block_size) {
  std::vector<BlockKey> keys;
  keys.reserve(tokens.size() / block_size);
  BlockKey parent = root;
  for (std::size_t at = 0; at + block_size <= tokens.size(); at += block_size)
    keys.push_back(parent = next_key(parent, tokens.subspan(at, block_size)));
  return keys;
}

}  // namespace pagedcore::store
