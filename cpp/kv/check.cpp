// KvCacheManager::check(): every invariant, recomputed from the tables.
#include <vector>

#include "base/text.hpp"
#include "kv/manager.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

void KvCacheManager::check() const {
  const Impl& kv = *impl_;
  kv.pool.check();
  if (kv.index) kv.index->check();
  if (kv.reservations) kv.reservations->check();

  std::vector<std::uint32_t> references(kv.pool.size());
  std::vector<std::uint32_t> borrows(kv.pool.size());
  std::vector<std::uint32_t> slot_references(kv.swap.size());
  std::size_t live = 0;
  std::vector<std::uint8_t> reserved(kv.reservations ? kv.pool.size() : 0);
  for (const kv::BlockTable& table : kv.tables) {
    if (!table.live) {
      if (!table.blocks.empty()) throw Corrupt("a free table slot still lists blocks");
      continue;
    }
    ++live;
    const auto id = raw(table.sequence);
    if (table.blocks.size() != std::size_t{kv.blocks_for(table.length)} * kv.groups) {
      throw Corrupt(str("sequence ", id, " has ", table.blocks.size(), " blocks for ", table.length, " tokens"));
    }
    if (kv.reservations && !table.lacks_chunk) {
      for (std::uint32_t i = 0; i < table.chunk.size(); ++i) {
        if (reserved.at(table.chunk.first + i)++ > 0) throw Corrupt(str("sequence ", id, " shares its chunk"));
        if (i < table.blocks.size() && raw(table.blocks[i]) != table.chunk.first + i) {
          throw Corrupt(str("sequence ", id, " has a block ", i, " outside its chunk"));
        }
      }
    }
    if (table.slots.size() != (table.swapped ? table.blocks.size() : 0)) {
      throw Corrupt(str("sequence ", id, " has ", table.slots.size(), " swap slots"));
    }
    for (std::size_t i = 0; i < table.slots.size(); ++i) {
      if (table.slots[i] == kNoSlot) continue;
      if (table.blocks[i] != kNoBlock) throw Corrupt(str("sequence ", id, " lists a block that is swapped out"));
      ++slot_references.at(raw(table.slots[i]));
    }
    for (std::uint32_t group = 0; group < kv.groups; ++group) {
      // Blocks that the next token sees are there.
      for (std::size_t i = kv.first_visible(group, table.length); i * kv.groups < table.blocks.size(); ++i) {
        const std::size_t at = i * kv.groups + group;
        if (table.blocks[at] != kNoBlock || (table.swapped && table.slots[at] != kNoSlot)) continue;
        throw Corrupt(str("sequence ", id, " has lost its block ", i, " of group ", group));
      }
    }
    if (std::uint64_t{table.published} * kv.config.block_size > table.length) {
      throw Corrupt(str("sequence ", id, " published ", table.published, " blocks of ", table.length, " tokens"));
    }
    const std::uint32_t* slot = kv.slots.find(id);
    if (slot == nullptr || &kv.tables[*slot] != &table) throw Corrupt(str("sequence ", id, " is not found by its id"));
    for (std::size_t i = 0; i < table.blocks.size(); ++i) {
      const BlockId block = table.blocks[i];
      if (block == kNoBlock) continue;
      if (raw(block) >= kv.pool.size()) throw Corrupt(str("sequence ", id, " lists block ", raw(block)));
      ++references[raw(block)];
      borrows[raw(block)] += table.borrows && i / kv.groups == table.length / kv.config.block_size;
    }
  }
  if (live != kv.slots.size() || live + kv.free_slots.size() != kv.tables.size()) {
    throw Corrupt(str(live, " tables are live, ", kv.slots.size(), " have ids, ", kv.free_slots.size(), " of ",
                      kv.tables.size(), " are free"));
  }
  for (std::uint32_t i = 0; i < kv.pool.size(); ++i) {
    const BlockId block{i};
    if (references[i] != kv.pool.references(block)) {
      throw Corrupt(str("block ", i, " counts ", kv.pool.references(block), " references and has ", references[i]));
    }
    if (references[i] - borrows[i] != kv.pool.holders(block))
      throw Corrupt(str("block ", i, ": borrows are miscounted"));
    if (kv.marks[i] != 0) throw Corrupt(str("block ", i, " keeps a mark of a swap"));
    if (kv.pool.is_cached(block) != (kv.index && (kv.index->contains(block) || kv.index->is_attached(block)))) {
      throw Corrupt(str("block ", i, ": the pool and the prefix index disagree about its contents"));
    }
  }
  std::uint32_t slots_in_use = 0;
  for (std::uint32_t i = 0; i < kv.swap.size(); ++i) {
    slots_in_use += slot_references[i] > 0;
    if (slot_references[i] == kv.swap.references(SwapSlot{i})) continue;
    throw Corrupt(
        str("swap slot ", i, " counts ", kv.swap.references(SwapSlot{i}), " references and has ", slot_references[i]));
  }
  if (slots_in_use + kv.swap.available() != kv.swap.size()) throw Corrupt("the free swap slots are miscounted");
}

}  // namespace pagedcore
