// Cache::check(): every invariant, recomputed from the tables.
#include <vector>

#include "base/text.hpp"
#include "kv/paged.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::kv {

void Cache::check() const {
  pool.check();
  std::vector<std::uint32_t> references(pool.size());
  std::vector<std::uint32_t> borrows(pool.size());
  std::size_t live = 0;
  for (const BlockTable& table : tables) {
    if (!table.live) {
      if (!table.blocks.empty()) throw Corrupt("a free table slot still lists blocks");
      continue;
    }
    ++live;
    const auto id = raw(table.sequence);
    if (table.blocks.size() != std::size_t{blocks_for(table.length)} * groups) {
      throw Corrupt(str("sequence ", id, " has ", table.blocks.size(), " blocks for ", table.length, " tokens"));
    }
    if (table.slots.size() != (table.swapped ? table.blocks.size() : 0)) {
      throw Corrupt(str("sequence ", id, " has ", table.slots.size(), " swap slots"));
    }
    for (std::size_t i = 0; i < table.slots.size(); ++i) {
      if (table.slots[i] == kNoSlot) continue;
      if (table.blocks[i] != kNoBlock) throw Corrupt(str("sequence ", id, " lists a block that is swapped out"));
    }
    for (std::uint32_t group = 0; group < groups; ++group) {
      // Blocks that the next token sees are there.
      for (std::size_t i = first_visible(group, table.length); i * groups < table.blocks.size(); ++i) {
        const std::size_t at = i * groups + group;
        if (table.blocks[at] != kNoBlock || (table.swapped && table.slots[at] != kNoSlot)) continue;
        throw Corrupt(str("sequence ", id, " has lost its block ", i, " of group ", group));
      }
    }
    if (std::uint64_t{table.published} * config.block_size > table.length) {
      throw Corrupt(str("sequence ", id, " published ", table.published, " blocks of ", table.length, " tokens"));
    }
    for (std::size_t i = table.blocks.size() - groups; table.own_slots > table.length && i < table.blocks.size(); ++i) {
      const BlockId last = table.blocks[i];
      if (!table.borrows && !table.swapped && pool.holders(last) == 1 && !pool.is_cached(last)) continue;
      throw Corrupt(str("sequence ", id, " takes its last block ", raw(last), " for its own"));
    }
    const std::uint32_t* slot = slots.find(id);
    if (slot == nullptr || &tables[*slot] != &table) throw Corrupt(str("sequence ", id, " is not found by its id"));
    for (std::size_t i = 0; i < table.blocks.size(); ++i) {
      const BlockId block = table.blocks[i];
      if (block == kNoBlock) continue;
      if (raw(block) >= pool.size()) throw Corrupt(str("sequence ", id, " lists block ", raw(block)));
      ++references[raw(block)];
      borrows[raw(block)] += table.borrows && i / groups == table.length / config.block_size;
    }
  }
  if (live != slots.size() || live + free_slots.size() != tables.size()) {
    throw Corrupt(str(live, " tables are live, ", slots.size(), " have ids, ", free_slots.size(), " of ", tables.size(),
                      " are free"));
  }
  for (std::uint32_t i = 0; i < pool.size(); ++i) {
    const BlockId block{i};
    if (references[i] != pool.references(block)) {
      throw Corrupt(str("block ", i, " counts ", pool.references(block), " references and has ", references[i]));
    }
    if (references[i] - borrows[i] != pool.holders(block)) throw Corrupt(str("block ", i, ": borrows are miscounted"));
    if (pool.is_cached(block) != has_content(block)) {
      throw Corrupt(str("block ", i, ": the pool and the prefix index disagree about its contents"));
    }
  }
  check_rest();
}

bool PagedCache::has_content(BlockId block) const {
  return index && (index->contains(block) || index->is_attached(block));
}

/// The index, the marks of swaps, and the slots of the swap space.
void PagedCache::check_rest() const {
  if (index) index->check();
  std::vector<std::uint32_t> slot_references(swap.size());
  for (const BlockTable& table : tables) {
    for (const SwapSlot slot : table.slots) {
      if (slot != kNoSlot) ++slot_references.at(raw(slot));
    }
  }
  for (std::uint32_t i = 0; i < pool.size(); ++i) {
    if (marks[i] != 0) throw Corrupt(str("block ", i, " keeps a mark of a swap"));
  }
  std::uint32_t slots_in_use = 0;
  for (std::uint32_t i = 0; i < swap.size(); ++i) {
    slots_in_use += slot_references[i] > 0;
    if (slot_references[i] == swap.references(SwapSlot{i})) continue;
    throw Corrupt(
        str("swap slot ", i, " counts ", swap.references(SwapSlot{i}), " references and has ", slot_references[i]));
  }
  if (slots_in_use + swap.available() != swap.size()) throw Corrupt("the free swap slots are miscounted");
}

}  // namespace pagedcore::kv
