// Swapping of KvCacheManager (PagedAttention, section 4.5): a group of sequences goes and comes as one, and what its
// sequences share goes and comes once.
#include <algorithm>

#include "base/text.hpp"
#include "kv/manager.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

using kv::BlockTable;

void KvCacheManager::reserve_swap(SequenceId seq) {
  BlockTable& table = impl_->table(seq);
  kv::grow_capacity(table.slots, table.blocks.size());
}

void KvCacheManager::swap_out(std::span<const SequenceId> group, std::vector<BlockSwap>& moves, StepId last_reader) {
  Impl& kv = *impl_;
  // Everything that may throw comes first.
  std::size_t most = 0;
  for (const SequenceId seq : group) {
    if (kv.resident_table(seq).borrows) {
      throw InvalidArgument(str("sequence ", raw(seq), " borrows a block of the prefix cache; append() to it first"));
    }
    BlockTable& table = kv.table(seq);
    kv::grow_capacity(table.slots, table.blocks.size());
    most += table.blocks.size();
  }
  kv::grow_capacity(moves, moves.size() + std::min<std::size_t>(most, kv.pool.size()));
  std::uint32_t needed = 0;
  for (const SequenceId seq : group) {
    for (const BlockId block : kv.table(seq).blocks) {
      if (block != kNoBlock) ++kv.marks[raw(block)];
    }
  }
  const auto is_ours = [&](BlockId block) { return kv.marks[raw(block)] == kv.pool.references(block); };
  for (const SequenceId seq : group) {
    for (const BlockId block : kv.table(seq).blocks) {
      if (block == kNoBlock || kv.marks[raw(block)] == 0) continue;  // counted
      needed += is_ours(block);
      kv.marks[raw(block)] = 0;
    }
  }
  if (needed > kv.swap.available()) {
    throw OutOfMemory(str("swapping out ", group.size(), " sequence(s) takes ", needed, " slots, but ",
                          kv.swap.available(), " of ", kv.swap.size(),
                          " are free; free() them to be recomputed, or use a larger swap space"));
  }

  for (const SequenceId seq : group) {
    for (const BlockId block : kv.table(seq).blocks) {
      if (block != kNoBlock) ++kv.marks[raw(block)];
    }
  }
  // From here a mark is the number of references that the group holds, or, once the block has a slot, that plus kSlot.
  constexpr std::uint32_t kSlot = 0x80000000u;
  for (const SequenceId seq : group) {
    BlockTable& table = kv.table(seq);
    table.slots.assign(table.blocks.size(), kNoSlot);
    table.swapped = true;
    for (std::size_t i = 0; i < table.blocks.size(); ++i) {
      const BlockId block = table.blocks[i];
      if (block == kNoBlock) continue;
      std::uint32_t& mark = kv.marks[raw(block)];
      if ((mark & kSlot) != 0) {
        table.slots[i] = SwapSlot{mark & ~kSlot};
        kv.swap.hold(table.slots[i]);
      } else if (is_ours(block)) {
        table.slots[i] = kv.swap.take();
        moves.push_back({block, table.slots[i]});
        mark = raw(table.slots[i]) | kSlot;
      }
    }
  }
  for (const SequenceId seq : group) {
    BlockTable& table = kv.table(seq);
    for (std::size_t i = table.blocks.size(); i-- > 0;) {
      BlockId& block = table.blocks[i];
      if (block == kNoBlock) continue;
      kv.marks[raw(block)] = 0;
      if (table.slots[i] == kNoSlot) continue;  // others read it: it stays
      kv.pool.release(block, last_reader);
      block = kNoBlock;
    }
  }
}

void KvCacheManager::swap_in(std::span<const SequenceId> group, std::vector<BlockSwap>& moves) {
  Impl& kv = *impl_;
  std::size_t references = 0;
  for (const SequenceId seq : group) {
    const BlockTable& table = kv.table(seq);
    if (!table.swapped)
      throw InvalidArgument(str("sequence ", raw(seq), " is in memory; only a swapped group comes in"));
    references += table.slots.size();
  }
  kv::grow_capacity(moves, moves.size() + std::min<std::size_t>(references, kv.swap.size()));
  const auto each = [&](auto&& visit) {
    for (const SequenceId seq : group) {
      BlockTable& table = kv.table(seq);
      for (std::size_t i = 0; i < table.slots.size(); ++i) {
        if (table.slots[i] != kNoSlot) visit(table.blocks[i], table.slots[i]);
      }
    }
  };
  // A slot's destination marks it as counted, then says where it goes.
  std::uint32_t needed = 0;
  const BlockId counted{0};
  each([&](BlockId, SwapSlot slot) {
    needed += kv.swap.destination(slot) == kNoBlock;
    kv.swap.destination(slot) = counted;
  });
  each([&](BlockId, SwapSlot slot) { kv.swap.destination(slot) = kNoBlock; });
  if (needed > kv.pool.available()) {
    throw OutOfMemory(str("swapping in ", group.size(), " sequence(s) takes ", needed, " KV blocks, but ",
                          kv.pool.available(), " of ", kv.pool.size(), " are available; free() a sequence first"));
  }
  each([&](BlockId& block, SwapSlot slot) {
    BlockId& to = kv.swap.destination(slot);
    if (to == kNoBlock) {
      to = kv.take();
      moves.push_back({to, slot});
    } else {
      kv.pool.hold(to);
    }
    block = to;
  });
  each([&](BlockId, SwapSlot slot) {
    kv.swap.destination(slot) = kNoBlock;
    kv.swap.release(slot);
  });
  for (const SequenceId seq : group) {
    kv.table(seq).slots.clear();
    kv.table(seq).swapped = false;
  }
}

}  // namespace pagedcore
