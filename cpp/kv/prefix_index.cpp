#include "kv/prefix_index.hpp"

#include <algorithm>
#include <bit>
#include <utility>

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

PrefixIndex::PrefixIndex(std::uint32_t num_blocks, std::uint32_t block_size, std::uint32_t num_groups, PrefixHash hash,
                         std::uint32_t max_events)
    : block_size_(block_size),
      num_groups_(num_groups),
      hash_(hash != nullptr ? hash : default_hash),
      table_(std::bit_ceil(std::max<std::size_t>(2 * std::size_t{num_blocks}, 2)), kNoBlock),
      stamps_(num_blocks),
      hashes_(num_blocks),
      parents_(num_blocks),
      tokens_(std::size_t{num_blocks} * block_size),
      counts_(num_blocks),
      children_(num_blocks, kNone),
      older_(num_blocks, kNone),
      newer_(num_blocks, kNone),
      attached_(std::size_t{num_groups - 1} * num_blocks, kNoBlock),
      owners_(num_groups > 1 ? num_blocks : 0, kNoBlock),
      events_(max_events) {
  shift_ = 64 - std::countr_zero(table_.size());
  roots_.fill(kNone);
}

/// Head of the list of those that continue a prefix that is alive.
std::uint32_t& PrefixIndex::first_child(PrefixLink parent) noexcept {
  if (parent.block != kNoBlock) return children_[raw(parent.block)];
  return roots_[mix(0, parent.stamp) % roots_.size()];
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

PrefixIndex::Partial PrefixIndex::find_partial(PrefixLink parent, std::span<const TokenId> wanted) const noexcept {
  constexpr std::uint32_t kMostVisited = 64;  // bounds the time; the latest are the likeliest
  Partial best;
  std::uint32_t at = const_cast<PrefixIndex*>(this)->first_child(parent);
  for (std::uint32_t visited = 0; at != kNone && visited < kMostVisited; at = older_[at], ++visited) {
    if (parents_[at] != parent) continue;  // another tenant's
    const auto has = tokens(BlockId{at});
    const auto common = static_cast<std::uint32_t>(std::ranges::mismatch(has, wanted).in1 - has.begin());
    if (common > best.num_tokens) best = {BlockId{at}, common};
  }
  return best;
}

void PrefixIndex::insert(BlockId block, PrefixLink parent, std::span<const TokenId> key) noexcept {
  const std::uint32_t i = raw(block);
  stamps_[i] = next_stamp_++;
  parents_[i] = parent;
  counts_[i] = static_cast<std::uint32_t>(key.size());
  std::ranges::copy(key, tokens_.begin() + static_cast<std::ptrdiff_t>(std::size_t{i} * block_size_));
  children_[i] = kNone;
  std::uint32_t& head = first_child(parent);
  older_[i] = head;
  newer_[i] = kNone;
  if (head != kNone) newer_[head] = i;
  head = i;
  const bool at_root = parent.block == kNoBlock;
  events_.stored(stamps_[i], at_root ? 0 : parent.stamp, at_root ? parent.stamp : 0, key);
  if (key.size() < block_size_) return;
  hashes_[i] = hash_of(parent, key);
  std::size_t at = home(hashes_[i]);
  while (table_[at] != kNoBlock) at = next(at);
  table_[at] = block;
  ++size_;
}

void PrefixIndex::erase(BlockId block) noexcept {
  const std::uint32_t i = raw(block);
  events_.removed(stamps_[i]);
  if (older_[i] != kNone) newer_[older_[i]] = newer_[i];
  if (newer_[i] != kNone) {
    older_[newer_[i]] = older_[i];
  } else if (is_alive(parents_[i])) {
    first_child(parents_[i]) = older_[i];
  }
  if (counts_[i] == block_size_) {
    std::size_t hole = home(hashes_[i]);
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
    --size_;
  }
  stamps_[i] = 0;
}

void PrefixIndex::clear() noexcept {
  std::ranges::fill(table_, kNoBlock);
  std::ranges::fill(stamps_, 0);
  std::ranges::fill(attached_, kNoBlock);
  std::ranges::fill(owners_, kNoBlock);
  roots_.fill(kNone);
  size_ = 0;
  events_.cleared();
}

void PrefixIndex::attach(BlockId entry, std::uint32_t group, BlockId block) noexcept {
  attached_[std::size_t{group - 1} * stamps_.size() + raw(entry)] = block;
  owners_[raw(block)] = entry;
}

void PrefixIndex::detach(BlockId block) noexcept {
  const BlockId entry = std::exchange(owners_[raw(block)], kNoBlock);
  for (std::uint32_t group = 1; group < num_groups_; ++group) {
    BlockId& place = attached_[std::size_t{group - 1} * stamps_.size() + raw(entry)];
    if (place == block) place = kNoBlock;
  }
}

void PrefixIndex::check() const {
  std::uint32_t full = 0;
  for (std::uint32_t i = 0; i < stamps_.size(); ++i) {
    const BlockId block{i};
    if (is_attached(block)) {
      bool found = false;
      for (std::uint32_t group = 1; group < num_groups_; ++group) found |= attached(owners_[i], group) == block;
      if (!found || !contains(owners_[i])) throw Corrupt(str("block ", i, " is attached to one that lacks it"));
    }
    if (!contains(block)) continue;
    if (older_[i] != kNone && newer_[older_[i]] != i) throw Corrupt(str("the siblings of block ", i, " disagree"));
    if (counts_[i] < block_size_) continue;
    ++full;
    if (hashes_[i] != hash_of(parents_[i], tokens(block)) || find(parents_[i], tokens(block)) != block) {
      throw Corrupt(str("the prefix index does not find block ", i, " under its own key"));
    }
  }
  const auto entries = std::ranges::count_if(table_, [](BlockId block) { return block != kNoBlock; });
  if (full != size_ || entries != static_cast<std::ptrdiff_t>(size_)) {
    throw Corrupt(str("the prefix index counts ", size_, " full blocks, knows ", full, " and lists ", entries));
  }
}

}  // namespace pagedcore::kv
