#include "kv/prefix_index.hpp"

#include <algorithm>
#include <bit>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::kv {
namespace {

std::uint64_t mix(std::uint64_t hash, std::uint64_t word) noexcept {
  hash = (hash ^ word) * 0x9fb21c651e98df25u;
  return hash ^ (hash >> 32);
}

std::uint64_t default_hash(std::uint64_t seed, const TokenId* tokens, std::size_t count) noexcept {
  std::uint64_t hash = seed;
  for (std::size_t i = 0; i < count; ++i) hash = mix(hash, static_cast<std::uint32_t>(tokens[i]));
  return mix(hash, count);
}

}  // namespace

PrefixIndex::PrefixIndex(std::uint32_t num_blocks, std::uint32_t block_size, PrefixHash hash)
    : block_size_(block_size),
      hash_(hash != nullptr ? hash : default_hash),
      table_(std::bit_ceil(std::max<std::size_t>(2 * std::size_t{num_blocks}, 2)), kNoBlock),
      stamps_(num_blocks),
      hashes_(num_blocks),
      parents_(num_blocks),
      tokens_(std::size_t{num_blocks} * block_size) {
  shift_ = 64 - std::countr_zero(table_.size());
}

std::uint64_t PrefixIndex::hash_of(PrefixLink parent, std::span<const TokenId> tokens) const noexcept {
  return hash_(mix(mix(0, raw(parent.block)), parent.stamp), tokens.data(), tokens.size());
}

BlockId PrefixIndex::find(PrefixLink parent, std::span<const TokenId> key) const noexcept {
  const std::uint64_t wanted = hash_of(parent, key);
  for (std::size_t at = home(wanted); table_[at] != kNoBlock; at = next(at)) {
    const BlockId block = table_[at];
    if (hashes_[raw(block)] == wanted && parents_[raw(block)] == parent && std::ranges::equal(tokens(block), key)) {
      return block;
    }
  }
  return kNoBlock;
}

void PrefixIndex::insert(BlockId block, PrefixLink parent, std::span<const TokenId> key) noexcept {
  const std::uint32_t i = raw(block);
  stamps_[i] = next_stamp_++;
  hashes_[i] = hash_of(parent, key);
  parents_[i] = parent;
  std::ranges::copy(key, tokens_.begin() + static_cast<std::ptrdiff_t>(std::size_t{i} * block_size_));
  std::size_t at = home(hashes_[i]);
  while (table_[at] != kNoBlock) at = next(at);
  table_[at] = block;
  ++size_;
}

void PrefixIndex::erase(BlockId block) noexcept {
  std::size_t hole = home(hashes_[raw(block)]);
  while (table_[hole] != block) hole = next(hole);
  // Entries behind the hole move back to where a probe will find them (Knuth, TAOCP 6.4, algorithm R).
  const std::size_t mask = table_.size() - 1;
  for (std::size_t at = next(hole); table_[at] != kNoBlock; at = next(at)) {
    const std::size_t wanted = home(hashes_[raw(table_[at])]);
    if (((at - wanted) & mask) < ((at - hole) & mask)) continue;
    table_[hole] = table_[at];
    hole = at;
  }
  table_[hole] = kNoBlock;
  stamps_[raw(block)] = 0;
  --size_;
}

void PrefixIndex::clear() noexcept {
  std::ranges::fill(table_, kNoBlock);
  std::ranges::fill(stamps_, 0);
  size_ = 0;
}

void PrefixIndex::check() const {
  std::uint32_t seen = 0;
  for (std::uint32_t i = 0; i < stamps_.size(); ++i) {
    const BlockId block{i};
    if (!contains(block)) continue;
    ++seen;
    if (hashes_[i] != hash_of(parents_[i], tokens(block)) || find(parents_[i], tokens(block)) != block) {
      throw Corrupt(str("the prefix index does not find block ", i, " under its own key"));
    }
  }
  const auto entries = std::ranges::count_if(table_, [](BlockId block) { return block != kNoBlock; });
  if (seen != size_ || entries != static_cast<std::ptrdiff_t>(size_)) {
    throw Corrupt(str("the prefix index counts ", size_, " blocks, knows ", seen, " and lists ", entries));
  }
}

}  // namespace pagedcore::kv
