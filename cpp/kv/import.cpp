// Prefixes whose keys and values were computed elsewhere, or are wanted there: what is there of a chain of blocks, and
// how blocks for the rest of it enter the cache without a sequence that computed them.
#include "kv/paged.hpp"

namespace pagedcore::kv {

std::vector<BlockId> PagedCache::cached_blocks(std::span<const TokenId> tokens, std::uint64_t salt) const {
  std::vector<BlockId> blocks;
  if (!index) return blocks;
  const std::size_t block_size = config.block_size;
  PrefixLink parent = PrefixLink::root(salt);
  for (std::size_t at = 0; at + block_size <= tokens.size(); at += block_size) {
    const BlockId entry = index->find(parent, tokens.subspan(at, block_size));
    if (entry == kNoBlock) break;
    for (std::uint32_t group = 0; group < groups; ++group) blocks.push_back(index->attached(entry, group));
    parent = index->link(entry);
  }
  return blocks;
}

std::vector<BlockId> PagedCache::import_prefix(std::span<const TokenId> tokens, std::uint64_t salt,
                                               std::span<const std::uint8_t> offered) {
  std::vector<BlockId> taken;
  if (!index) return taken;
  const std::size_t block_size = config.block_size;
  taken.reserve(offered.size());
  std::vector<BlockId> held;  // so that no block of the chain is evicted for another
  held.reserve(offered.size());
  const auto take_one = [&] {
    const BlockId block = take();
    pool.set_cached(block, true);
    held.push_back(block);
    return block;
  };
  PrefixLink parent = PrefixLink::root(salt);
  for (std::size_t i = 0; i < offered.size() / groups; ++i) {
    const auto key = tokens.subspan(i * block_size, block_size);
    BlockId entry = index->find(parent, key);
    const bool is_there = entry != kNoBlock;
    if (is_there) {
      pool.hold(entry);
      held.push_back(entry);
    } else {
      if (offered[i * groups] == 0 || pool.available() == 0) break;
      entry = take_one();
      index->insert(entry, parent, key);
    }
    taken.push_back(is_there ? kNoBlock : entry);
    for (std::uint32_t group = 1; group < groups; ++group) {
      BlockId& place = taken.emplace_back(kNoBlock);
      if (const BlockId other = index->attached(entry, group); other != kNoBlock) {
        pool.hold(other);
        held.push_back(other);
      } else if (offered[i * groups + group] != 0 && pool.available() > 0) {
        place = take_one();
        index->attach(entry, group, place);
      }
    }
    parent = index->link(entry);
  }
  // Tail first, as a sequence does.
  for (std::size_t i = held.size(); i-- > 0;) pool.release(held[i], StepId{0});
  return taken;
}

}  // namespace pagedcore::kv
