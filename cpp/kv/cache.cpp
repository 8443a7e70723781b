// The tables of sequences by id, which all ways of allocation have in common.
#include "kv/cache.hpp"

#include <limits>
#include <utility>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::kv {

Cache::Cache(const KvCacheConfig& config_)
    : config(config_),
      groups(std::max<std::uint32_t>(1, static_cast<std::uint32_t>(config.windows.size()))),
      windows(config.windows.empty() ? std::vector<std::uint32_t>{0} : config.windows),
      has_windows(std::ranges::any_of(windows, [](std::uint32_t window) { return window > 0; })),
      pool(config.num_blocks) {}
Cache::~Cache() = default;
Scratch::~Scratch() = default;

void Scratch::refuse_if_stale() const {
  if (changes_ == cache_.changes) return;
  throw InvalidArgument("the cache has changed since this scratch() was made; make another one");
}

std::uint32_t Cache::blocks_for(std::uint64_t tokens) const noexcept {
  if (tokens < 0x80000000u) {  // 32-bit division takes a third of the time
    return (static_cast<std::uint32_t>(tokens) + config.block_size - 1) / config.block_size;
  }
  const std::uint64_t blocks = tokens / config.block_size + (tokens % config.block_size != 0);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(blocks, std::numeric_limits<std::uint32_t>::max()));
}

std::uint32_t Cache::first_visible(std::uint32_t group, std::uint32_t next) const noexcept {
  const std::uint32_t window = windows[group];
  return window == 0 || next < window ? 0 : (next - window + 1) / config.block_size;
}

const BlockTable& Cache::table(SequenceId seq) const {
  if (const std::uint32_t* slot = slots.find(raw(seq))) return tables[*slot];
  throw InvalidArgument(str("sequence ", raw(seq), " is unknown; create() or fork() it first"));
}

BlockTable& Cache::table(SequenceId seq) { return const_cast<BlockTable&>(std::as_const(*this).table(seq)); }

void Cache::refuse_swapped(const BlockTable& table) {
  if (!table.swapped) return;
  throw InvalidArgument(
      str("sequence ", raw(table.sequence), " is swapped out; swap_in() its group before it is used"));
}

void Cache::refuse_twice(std::span<const SequenceId> group) {
  for (const SequenceId seq : group) static_cast<void>(table(seq));  // throws for one that is unknown
  const auto twice =
      std::ranges::find_if(group, [&](SequenceId seq) { return std::exchange(table(seq).marked, true); });
  for (const SequenceId seq : group) table(seq).marked = false;
  if (twice == group.end()) return;
  throw InvalidArgument(str("sequence ", raw(*twice), " is named twice in a group of ", group.size(),
                            "; a group names each of its sequences once"));
}

void Cache::refuse_long_fork(const BlockTable& parent, std::uint32_t num_tokens) const {
  if (num_tokens <= parent.length) return;
  throw InvalidArgument(str("fork at ", num_tokens, " tokens of sequence ", raw(parent.sequence), ", which has ",
                            parent.length, "; fork at its length or before"));
}

BlockTable& Cache::resident_table(SequenceId seq) {
  BlockTable& found = table(seq);
  refuse_swapped(found);
  return found;
}

/// An empty table with room for `num_blocks`. Everything that may throw comes first; only then `seq` is known.
BlockTable& Cache::new_table(SequenceId seq, std::size_t num_blocks) {
  if (slots.find(raw(seq)) != nullptr) {
    throw InvalidArgument(str("sequence ", raw(seq), " already exists; free() it first or choose another id"));
  }
  if (free_slots.empty()) {
    grow_capacity(tables, tables.size() + 1);
    grow_capacity(free_slots, tables.size() + 1);  // so that free() never allocates
    tables.emplace_back();
    free_slots.push_back(static_cast<std::uint32_t>(tables.size() - 1));
  }
  const std::uint32_t slot = free_slots.back();
  BlockTable& table = tables[slot];
  grow_capacity(table.blocks, num_blocks);
  slots[raw(seq)] = slot;
  free_slots.pop_back();
  table.sequence = seq;
  table.live = true;
  return table;
}

/// Forgets a sequence, but keeps the table's memory for the next one.
void Cache::drop_table(SequenceId seq) noexcept {
  const std::uint32_t slot = *slots.find(raw(seq));
  BlockTable& table = tables[slot];
  std::vector<BlockId> blocks = std::move(table.blocks);
  std::vector<SwapSlot> swap_slots = std::move(table.slots);
  blocks.clear();
  swap_slots.clear();
  table = BlockTable{};
  table.blocks = std::move(blocks);
  table.slots = std::move(swap_slots);
  slots.erase(raw(seq));
  free_slots.push_back(slot);
}

}  // namespace pagedcore::kv
