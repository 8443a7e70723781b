// Swapping (PagedAttention, section 4.5): a group of sequences goes and comes as one, and what its sequences share goes
// and comes once.
#include <algorithm>

#include "base/text.hpp"
#include "kv/paged.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::kv {

void PagedCache::swap_out(std::span<const SequenceId> group, std::vector<BlockSwap>& moves, StepId last_reader) {
  // Everything that may throw comes first.
  refuse_twice(group);
  std::size_t most = 0;
  for (const SequenceId seq : group) {
    if (resident_table(seq).borrows) {
      throw InvalidArgument(str("sequence ", raw(seq), " borrows a block of the prefix cache; append() to it first"));
    }
    BlockTable& table = this->table(seq);
    grow_capacity(table.slots, table.blocks.size());
    most += table.blocks.size();
  }
  grow_capacity(moves, moves.size() + std::min<std::size_t>(most, pool.size()));
  std::uint32_t needed = 0;
  for (const SequenceId seq : group) {
    for (const BlockId block : table(seq).blocks) {
      if (block != kNoBlock) ++marks[raw(block)];
    }
  }
  const auto is_ours = [&](BlockId block) { return marks[raw(block)] == pool.references(block); };
  for (const SequenceId seq : group) {
    for (const BlockId block : table(seq).blocks) {
      if (block == kNoBlock || marks[raw(block)] == 0) continue;  // counted
      needed += is_ours(block);
      marks[raw(block)] = 0;
    }
  }
  if (needed > swap.available()) {
    throw OutOfMemory(str("swapping out ", group.size(), " sequence(s) takes ", needed, " slots, but ",
                          swap.available(), " of ", swap.size(),
                          " are free; free() them to be recomputed, or use a larger swap space"));
  }

  for (const SequenceId seq : group) {
    for (const BlockId block : table(seq).blocks) {
      if (block != kNoBlock) ++marks[raw(block)];
    }
  }
  // From here a mark is the number of references that the group holds, or, once the block has a slot, that plus kSlot.
  constexpr std::uint32_t kSlot = 0x80000000u;
  for (const SequenceId seq : group) {
    BlockTable& table = this->table(seq);
    table.slots.assign(table.blocks.size(), kNoSlot);
    table.swapped = true;
    table.own_slots = 0;
    for (std::size_t i = 0; i < table.blocks.size(); ++i) {
      const BlockId block = table.blocks[i];
      if (block == kNoBlock) continue;
      std::uint32_t& mark = marks[raw(block)];
      if ((mark & kSlot) != 0) {
        table.slots[i] = SwapSlot{mark & ~kSlot};
        swap.hold(table.slots[i]);
      } else if (is_ours(block)) {
        table.slots[i] = swap.take();
        moves.push_back({block, table.slots[i]});
        mark = raw(table.slots[i]) | kSlot;
      }
    }
  }
  for (const SequenceId seq : group) {
    BlockTable& table = this->table(seq);
    for (std::size_t i = table.blocks.size(); i-- > 0;) {
      BlockId& block = table.blocks[i];
      if (block == kNoBlock) continue;
      marks[raw(block)] = 0;
      if (table.slots[i] == kNoSlot) continue;  // others read it: it stays
      pool.release(block, last_reader);
      block = kNoBlock;
    }
  }
}

void PagedCache::swap_in(std::span<const SequenceId> group, std::vector<BlockSwap>& moves) {
  refuse_twice(group);
  std::size_t references = 0;
  for (const SequenceId seq : group) {
    const BlockTable& table = this->table(seq);
    if (!table.swapped)
      throw InvalidArgument(str("sequence ", raw(seq), " is in memory; only a swapped group comes in"));
    references += table.slots.size();
  }
  grow_capacity(moves, moves.size() + std::min<std::size_t>(references, swap.size()));
  const auto each = [&](auto&& visit) {
    for (const SequenceId seq : group) {
      BlockTable& table = this->table(seq);
      for (std::size_t i = 0; i < table.slots.size(); ++i) {
        if (table.slots[i] != kNoSlot) visit(table.blocks[i], table.slots[i]);
      }
    }
  };
  // A slot's destination marks it as counted, then says where it goes.
  std::uint32_t needed = 0;
  const BlockId counted{0};
  each([&](BlockId, SwapSlot slot) {
    needed += swap.destination(slot) == kNoBlock;
    swap.destination(slot) = counted;
  });
  each([&](BlockId, SwapSlot slot) { swap.destination(slot) = kNoBlock; });
  if (needed > pool.available()) {
    throw OutOfMemory(str("swapping in ", group.size(), " sequence(s) takes ", needed, " KV blocks, but ",
                          pool.available(), " of ", pool.size(), " are available; free() a sequence first"));
  }
  each([&](BlockId& block, SwapSlot slot) {
    BlockId& to = swap.destination(slot);
    if (to == kNoBlock) {
      to = take();
      moves.push_back({to, slot});
    } else {
      pool.hold(to);
    }
    block = to;
  });
  each([&](BlockId, SwapSlot slot) {
    swap.destination(slot) = kNoBlock;
    swap.release(slot);
  });
  for (const SequenceId seq : group) {
    table(seq).slots.clear();
    table(seq).swapped = false;
  }
}

}  // namespace pagedcore::kv
