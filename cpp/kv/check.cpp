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

  std::vector<std::uint32_t> references(kv.pool.size());
  std::size_t live = 0;
  for (const kv::BlockTable& table : kv.tables) {
    if (!table.live) {
      if (!table.blocks.empty()) throw Corrupt("a free table slot still lists blocks");
      continue;
    }
    ++live;
    const auto id = raw(table.sequence);
    if (table.blocks.size() != kv.blocks_for(table.length)) {
      throw Corrupt(str("sequence ", id, " has ", table.blocks.size(), " blocks for ", table.length, " tokens"));
    }
    if (std::uint64_t{table.published} * kv.config.block_size > table.length) {
      throw Corrupt(str("sequence ", id, " published ", table.published, " blocks of ", table.length, " tokens"));
    }
    const std::uint32_t* slot = kv.slots.find(id);
    if (slot == nullptr || &kv.tables[*slot] != &table) throw Corrupt(str("sequence ", id, " is not found by its id"));
    for (const BlockId block : table.blocks) {
      if (raw(block) >= kv.pool.size()) throw Corrupt(str("sequence ", id, " lists block ", raw(block)));
      ++references[raw(block)];
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
    if (kv.pool.is_cached(block) != (kv.index && kv.index->contains(block))) {
      throw Corrupt(str("block ", i, ": the pool and the prefix index disagree about its contents"));
    }
  }
}

}  // namespace pagedcore
