// The prefix cache side of paged allocation: match, publish, withdraw.
#include <algorithm>

#include "base/text.hpp"
#include "kv/paged.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::kv {

/// The index forgets the block; an entry takes the blocks of the other groups with it.
void PagedCache::withdraw(BlockId block) {
  if (index->contains(block)) {
    for (std::uint32_t group = 1; group < groups; ++group) {
      const BlockId other = index->attached(block, group);
      if (other == kNoBlock) continue;
      index->detach(other);
      pool.set_cached(other, false);
    }
    index->erase(block);
  } else {
    index->detach(block);
  }
  pool.set_cached(block, false);
}

/// How many of `num_tokens` matched tokens are of use: of a group with a window its blocks may have gone one by one,
/// and those that the next token sees must be there. `entries`: the matched blocks of group 0.
std::uint32_t PagedCache::trim_to_windows(const std::vector<BlockId>& entries,
                                          std::uint32_t num_tokens) const noexcept {
  for (bool fits = false; !fits && num_tokens > 0;) {
    fits = true;
    for (std::uint32_t group = 1; group < groups && fits; ++group) {
      for (std::uint32_t i = blocks_for(num_tokens); i-- > first_visible(group, num_tokens) && fits;) {
        if (index->attached(entries[i], group) != kNoBlock) continue;
        num_tokens = i * config.block_size;
        fits = false;
      }
    }
  }
  return num_tokens;
}

PrefixMatch PagedCache::match_prefix(std::span<const TokenId> tokens, std::uint64_t salt, std::uint32_t max_tokens,
                                     bool whole_blocks) const {
  PrefixMatch match;
  if (!index) return match;
  const std::uint32_t block_size = config.block_size;
  const std::size_t limit = std::min<std::size_t>(tokens.size(), max_tokens);
  std::vector<BlockId> entries;
  PrefixLink parent = PrefixLink::root(salt);
  while ((entries.size() + 1) * block_size <= limit) {
    const BlockId block = index->find(parent, tokens.subspan(entries.size() * block_size, block_size));
    if (block == kNoBlock) break;
    entries.push_back(block);
    parent = index->link(block);
  }
  const std::size_t whole = entries.size() * block_size;
  std::uint32_t num_tokens = static_cast<std::uint32_t>(whole);
  if (!whole_blocks && whole < limit) {
    const auto rest = tokens.subspan(whole, std::min<std::size_t>(limit - whole, block_size - 1));
    const auto partial = index->find_partial(parent, rest);
    num_tokens += partial.num_tokens;
    if (partial.num_tokens > 0) entries.push_back(partial.block);
  }
  num_tokens = trim_to_windows(entries, num_tokens);
  if (whole_blocks) num_tokens -= num_tokens % block_size;

  match.num_tokens = num_tokens;
  const std::uint32_t size = blocks_for(num_tokens);
  match.blocks.reserve(std::size_t{size} * groups);
  for (std::uint32_t i = 0; i < size; ++i) {
    for (std::uint32_t group = 0; group < groups; ++group) {
      // The last full block stays in any case: what comes next is published as its continuation.
      const bool is_seen = i >= first_visible(group, num_tokens) || (group == 0 && i + 1 >= num_tokens / block_size);
      match.blocks.push_back(is_seen ? index->attached(entries[i], group) : kNoBlock);
    }
  }
  return match;
}

/// A match outlives its manager's state only by mistake; a stale one is recognised in O(1) per block.
void PagedCache::verify(const PrefixMatch& match, std::uint64_t salt) const {
  bool valid = match.blocks.size() == std::size_t{blocks_for(match.num_tokens)} * groups;
  PrefixLink parent = PrefixLink::root(salt);
  bool is_known = true;  // what the next entry must continue: not behind an entry that a window has passed
  for (std::size_t i = 0; valid && i < match.blocks.size(); ++i) {
    const BlockId block = match.blocks[i];
    const BlockId entry = match.blocks[i - i % groups];
    if (block == kNoBlock) {
      is_known = is_known && i % groups != 0;
      continue;
    }
    valid = index && raw(block) < pool.size();
    if (!valid) break;
    if (i % groups != 0) {
      valid = entry != kNoBlock ? index->attached(entry, static_cast<std::uint32_t>(i % groups)) == block
                                : index->is_attached(block);
      continue;
    }
    const std::uint32_t behind = match.num_tokens - static_cast<std::uint32_t>(i / groups) * config.block_size;
    valid = index->contains(block) && index->num_tokens(block) >= std::min(behind, config.block_size) &&
            (!is_known || index->parent(block) == parent);
    parent = index->link(block);
    is_known = true;
  }
  if (!valid) {
    throw InvalidArgument(str("the prefix match of ", match.num_tokens, " tokens is not (or no longer) what the cache ",
                              "holds; use match_prefix() with the same salt right before create()"));
  }
}

/// Publishes logical block `at` under the table's tail, unless the index has its like. False when it cannot be.
bool PagedCache::publish_block(BlockTable& table, std::uint32_t at, std::span<const TokenId> key) {
  const bool is_full = key.size() == config.block_size;
  const std::size_t first = std::size_t{at} * groups;
  BlockId entry = kNoBlock;
  if (is_full) {
    entry = index->find(table.tail, key);
  } else if (const auto like = index->find_partial(table.tail, key); like.num_tokens == key.size()) {
    return true;
  }
  if (entry == kNoBlock) {
    entry = table.blocks[first];
    if (entry == kNoBlock) return false;  // a window has passed it
    if (index->contains(entry)) {
      const bool elsewhere = index->num_tokens(entry) == config.block_size && index->is_alive(index->parent(entry));
      if (elsewhere) return false;  // found under the prefix of another tenant
      withdraw(entry);              // it was published under a parent that is gone, or with fewer tokens
    }
    index->insert(entry, table.tail, key);
    pool.set_cached(entry, true);
  }
  for (std::uint32_t group = 1; group < groups; ++group) {
    const BlockId block = table.blocks[first + group];
    if (block == kNoBlock || index->attached(entry, group) != kNoBlock) continue;
    if (index->is_attached(block)) continue;  // to one like this under another parent
    index->attach(entry, group, block);
    pool.set_cached(block, true);
  }
  if (is_full) table.tail = index->link(entry);
  return true;
}

std::uint32_t PagedCache::published(const BlockTable& table) const noexcept {
  if (!index || !table.publishes) return kMostLength;
  return index->is_alive(table.tail) ? table.published * config.block_size : 0;
}

void PagedCache::publish(BlockTable& table, std::span<const TokenId> tokens, std::uint32_t num_computed, bool tail,
                         std::uint32_t left_out) {
  const std::uint32_t block_size = config.block_size;
  const std::uint32_t full = num_computed / block_size;
  const bool has_tail = tail && num_computed % block_size != 0 && !table.borrows;
  if (!index || !table.publishes || (table.published >= full && !has_tail)) return;
  if (!index->is_alive(table.tail)) {
    // The block of another sequence that stood for ours was evicted: start over, now with our own.
    table.published = 0;
    table.tail = PrefixLink::root(table.salt);
  }
  for (; table.published < full; ++table.published) {
    const auto key = tokens.subspan(std::size_t{table.published} * block_size - left_out, block_size);
    if (publish_block(table, table.published, key)) continue;
    table.publishes = false;
    return;
  }
  if (has_tail && table.published == full) {
    const std::uint32_t rest = num_computed % block_size;
    table.own_slots = 0;
    static_cast<void>(publish_block(table, full, tokens.subspan(num_computed - rest - left_out, rest)));
  }
}

void PagedCache::clear_prefix_cache() noexcept {
  if (!index) return;
  index->clear();
  for (std::uint32_t block = 0; block < pool.size(); ++block) pool.set_cached(BlockId{block}, false);
  for (BlockTable& table : tables) {
    table.published = 0;
    table.tail = PrefixLink::root(table.salt);
    table.publishes = table.publishes && !table.live;
  }
}

std::vector<CacheEvent> PagedCache::take_events() { return index ? index->events().take() : std::vector<CacheEvent>{}; }

}  // namespace pagedcore::kv
