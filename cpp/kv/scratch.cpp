#include "kv/scratch.hpp"

namespace pagedcore::kv {

/// Those who may write to the block.
std::uint32_t PagedScratch::holders(BlockId block) const {
  const Block* touched = blocks_.find(raw(block));
  return touched != nullptr ? touched->references - touched->borrows : kv_.pool.holders(block);
}

std::uint32_t PagedScratch::references(BlockId block) const {
  const Block* touched = blocks_.find(raw(block));
  return touched != nullptr ? touched->references : kv_.pool.references(block);
}

PagedScratch::Block& PagedScratch::touch(BlockId block) {
  if (Block* touched = blocks_.find(raw(block))) return *touched;
  Block& added = blocks_[raw(block)];
  added = {.references = kv_.pool.references(block),
           .borrows = kv_.pool.references(block) - kv_.pool.holders(block),
           .available = kv_.pool.is_reusable(block)};
  return added;
}

void PagedScratch::hold(BlockId id) {
  Block& block = touch(id);
  if (block.references++ == 0 && block.available) --available;
}

void PagedScratch::release(BlockId id, StepId last_reader) {
  Block& block = touch(id);
  block.fenced = block.fenced || !kv_.pool.is_unfenced(id, last_reader);
  if (--block.references != 0) return;
  block.available = !block.fenced;
  available += block.available;
}

PagedScratch::Table PagedScratch::table(const BlockTable& real) const {
  if (const Table* touched = tables_.find(raw(real.sequence))) return *touched;
  return {.kept = static_cast<std::uint32_t>(real.blocks.size() / kv_.groups)};
}

bool PagedScratch::append(SequenceId seq, std::uint32_t length) {
  const BlockTable& real = kv_.table(seq);
  if (blocks_.empty() && tables_.empty() && PagedCache::grows_in_place(real, length)) {
    return true;
  }
  const Table table = this->table(real);
  if (table.freed || real.swapped) return false;
  const std::uint32_t groups = kv_.groups;
  const std::uint32_t size = kv_.blocks_for(length);
  const std::uint32_t had = table.kept + table.taken;
  // A block taken here is the sequence's own; only one of the real table can be shared or published.
  const bool writes_last = length > real.length && kv_.is_partial(real.length) && table.taken == 0;
  const std::size_t last = real.blocks.size() - groups;
  const bool copies_last = writes_last && kv_.copies_last(real, [&](BlockId block) { return holders(block); });
  const std::uint32_t needed = (size > had ? size - had : 0) + copies_last;
  if (std::uint64_t{needed} * groups > available) return false;
  if (needed > 0) {
    tables_[raw(seq)] = {table.kept - copies_last, table.taken + needed, false};
    available -= needed * groups;
  }
  for (std::size_t i = last; writes_last && i < real.blocks.size(); ++i) {
    if (real.borrows) continue;  // it stays where it is while the step copies from it
    if (copies_last) {
      if (touch(real.blocks[i]).references == 1) touch(real.blocks[i]).fenced = true;  // by this step
      release(real.blocks[i], StepId{0});
    } else if (kv_.pool.is_cached(real.blocks[i])) {
      touch(real.blocks[i]).withdrawn = true;
    }
  }
  return true;
}

bool PagedScratch::create(const PrefixMatch& match, std::uint32_t length, std::uint64_t spare, const KvGroup&) {
  const std::uint32_t groups = kv_.groups;
  const std::uint32_t size = kv_.blocks_for(length);
  const std::uint32_t full = match.num_tokens / kv_.config.block_size;
  const std::uint64_t taken = length > match.num_tokens ? std::uint64_t{size - full} * groups : 0;
  std::uint64_t needed = taken;
  for (std::size_t i = 0; i < match.blocks.size(); ++i) {
    const BlockId id = match.blocks[i];
    if (id == kNoBlock) continue;
    const Block* touched = blocks_.find(raw(id));
    if (touched != nullptr && touched->withdrawn) return false;
    needed += touched != nullptr ? touched->references == 0 && touched->available : kv_.pool.is_reusable(id);
  }
  if (needed + spare > available) return false;
  for (std::size_t i = 0; i < match.blocks.size(); ++i) {
    const BlockId id = match.blocks[i];
    if (id == kNoBlock) continue;
    if (i < std::size_t{full} * groups) {
      hold(id);
      continue;
    }
    // Borrowed until the step has copied from it.
    Block& block = touch(id);
    if (block.references == 0 && block.available) --available;
    block.available = false;
    block.fenced = true;
  }
  available -= static_cast<std::uint32_t>(taken);
  return true;
}

bool PagedScratch::fork(SequenceId parent, std::uint32_t num_tokens, std::uint32_t length, std::uint64_t spare) {
  const BlockTable& real = kv_.table(parent);
  const Table table = this->table(real);
  const std::uint32_t groups = kv_.groups;
  const std::uint32_t shared = kv_.blocks_for(num_tokens);
  if (table.freed || real.swapped || shared > table.kept) return false;  // only what the manager holds
  const bool copies_last = length > num_tokens && kv_.is_partial(num_tokens);
  const std::uint32_t size = kv_.blocks_for(length);
  const std::uint32_t needed = (size > shared ? size - shared : 0) + copies_last;
  if (std::uint64_t{needed} * groups + spare > available) return false;
  for (std::size_t i = 0; i < std::size_t{shared - copies_last} * groups; ++i) {
    if (real.blocks[i] != kNoBlock) hold(real.blocks[i]);
  }
  available -= needed * groups;
  return true;
}

void PagedScratch::free(SequenceId seq, StepId last_reader) {
  const BlockTable& real = kv_.table(seq);
  const Table table = this->table(real);
  if (table.freed) return;
  const std::uint32_t groups = kv_.groups;
  tables_[raw(seq)] = {0, 0, true};
  for (std::size_t i = std::size_t{table.kept} * groups; i-- > 0;) {
    if (real.blocks[i] == kNoBlock) continue;
    if (real.borrows && i / groups == real.length / kv_.config.block_size) --touch(real.blocks[i]).borrows;
    release(real.blocks[i], last_reader);
  }
  available += table.taken * groups;
  // A slot of several sequences comes free with the last of them: not counted on here.
}

bool PagedScratch::swap_out(std::span<const SequenceId> group, StepId last_reader) {
  const std::uint32_t groups = kv_.groups;
  // As if nothing had been appended here: a last block that was to be copied is theirs again.
  FlatMap<std::uint32_t> ours;  // references that the group holds, by block
  for (const SequenceId seq : group) {
    const BlockTable& real = kv_.table(seq);
    if (table(real).freed || real.swapped || real.borrows) return false;
    for (const BlockId block : real.blocks) {
      if (block != kNoBlock) ++ours[raw(block)];
    }
  }
  for (const SequenceId seq : group) {
    const BlockTable& real = kv_.table(seq);
    const Table table = this->table(real);
    tables_[raw(seq)] = {static_cast<std::uint32_t>(real.blocks.size() / groups), 0, false};
    available += table.taken * groups;
    for (std::size_t i = std::size_t{table.kept} * groups; i < real.blocks.size(); ++i) hold(real.blocks[i]);
  }
  std::uint32_t needed = 0;
  FlatMap<std::uint8_t> moved;
  for (const SequenceId seq : group) {
    for (const BlockId block : kv_.table(seq).blocks) {
      if (block == kNoBlock || references(block) != *ours.find(raw(block)) || moved.find(raw(block)) != nullptr)
        continue;
      moved[raw(block)] = 1;
      ++needed;
    }
  }
  if (needed > slots_) return false;
  slots_ -= needed;
  for (const SequenceId seq : group) {
    const BlockTable& real = kv_.table(seq);
    for (std::size_t i = real.blocks.size(); i-- > 0;) {
      if (real.blocks[i] != kNoBlock && moved.find(raw(real.blocks[i])) != nullptr) {
        release(real.blocks[i], last_reader);
      }
    }
    tables_[raw(seq)] = {0, 0, true};  // of no further use in this plan
  }
  return true;
}

bool PagedScratch::swap_in(std::span<const SequenceId> group, std::uint64_t spare) {
  FlatMap<std::uint8_t> slots;
  for (const SequenceId seq : group) {
    const BlockTable& real = kv_.table(seq);
    const Table* touched = tables_.find(raw(seq));
    if (!real.swapped || (touched != nullptr && touched->freed)) return false;
    for (const SwapSlot slot : real.slots) {
      if (slot != kNoSlot) slots[raw(slot)] = 1;
    }
  }
  if (slots.size() + spare > available) return false;
  available -= static_cast<std::uint32_t>(slots.size());
  return true;
}

}  // namespace pagedcore::kv
