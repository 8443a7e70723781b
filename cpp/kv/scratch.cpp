// KvScratch: what the manager's counts would be after some operations, in memory proportional to what they touch.
#include <memory>

#include "kv/flat_map.hpp"
#include "kv/manager.hpp"

namespace pagedcore {

struct KvScratch::Impl {
  /// A sequence that took or gave up blocks here: the first `kept` logical blocks of its table, then `taken` new ones
  /// of its own.
  struct Table {
    std::uint32_t kept = 0;
    std::uint32_t taken = 0;
    bool freed = false;
  };
  /// A block whose references differ here.
  struct Block {
    std::uint32_t references = 0;
    std::uint32_t borrows = 0;  // of them; never made here, but given back
    bool available = false;     // with no references: counted in `available`
    bool fenced = false;        // some release waits for a step in flight
    bool withdrawn = false;     // leaves the prefix index: its last holder is going to write to it
  };

  explicit Impl(const KvCacheManager::Impl& kv_)
      : kv(&kv_), available(kv_.pool.available()), slots(kv_.swap.available()) {
    if (kv_.reservations) chunks = kv_.reservations->buddy().counts();
  }

  /// Those who may write to the block.
  std::uint32_t holders(BlockId block) const {
    const Block* touched = blocks.find(raw(block));
    return touched != nullptr ? touched->references - touched->borrows : kv->pool.holders(block);
  }

  Block& touch(BlockId block) {
    if (Block* touched = blocks.find(raw(block))) return *touched;
    Block& added = blocks[raw(block)];
    added = {.references = kv->pool.references(block),
             .borrows = kv->pool.references(block) - kv->pool.holders(block),
             .available = kv->pool.is_reusable(block)};
    return added;
  }

  void hold(BlockId id) {
    Block& block = touch(id);
    if (block.references++ == 0 && block.available) --available;
  }

  void release(BlockId id, StepId last_reader) {
    Block& block = touch(id);
    block.fenced = block.fenced || !kv->pool.is_unfenced(id, last_reader);
    if (--block.references != 0) return;
    block.available = !block.fenced;
    available += block.available;
  }

  Table table(const kv::BlockTable& real) const {
    if (const Table* touched = tables.find(raw(real.sequence))) return *touched;
    return {.kept = static_cast<std::uint32_t>(real.blocks.size() / kv->groups)};
  }

  const KvCacheManager::Impl* kv;
  std::uint32_t available;
  std::uint32_t slots;
  kv::BuddyAllocator::Counts chunks{};  // free ones; those of a group that is freed here are not counted on
  kv::FlatMap<Table> tables;
  kv::FlatMap<Block> blocks;
};

KvScratch::KvScratch(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
KvScratch::~KvScratch() = default;
KvScratch::KvScratch(KvScratch&&) noexcept = default;
KvScratch& KvScratch::operator=(KvScratch&&) noexcept = default;

KvScratch KvCacheManager::scratch() const { return KvScratch(std::make_unique<KvScratch::Impl>(*impl_)); }

std::uint32_t KvScratch::available() const noexcept { return impl_->available; }

bool KvScratch::append(SequenceId seq, std::uint32_t length) {
  const kv::BlockTable& real = impl_->kv->table(seq);
  if (impl_->blocks.empty() && impl_->tables.empty() && length > real.length &&
      impl_->kv->grows_in_place(real, length)) {
    return true;
  }
  const Impl::Table table = impl_->table(real);
  if (table.freed || real.swapped) return false;
  if (impl_->kv->reservations) return true;  // set aside when it was created
  const std::uint32_t groups = impl_->kv->groups;
  const std::uint32_t size = impl_->kv->blocks_for(length);
  const std::uint32_t had = table.kept + table.taken;
  // A block taken here is the sequence's own; only one of the real table can be shared or published.
  const bool writes_last = length > real.length && impl_->kv->is_partial(real.length) && table.taken == 0;
  const std::size_t last = real.blocks.size() - groups;
  const bool copies_last =
      writes_last && impl_->kv->copies_last(real, [&](BlockId block) { return impl_->holders(block); });
  const std::uint32_t needed = (size > had ? size - had : 0) + copies_last;
  if (std::uint64_t{needed} * groups > impl_->available) return false;
  if (needed > 0) {
    impl_->tables[raw(seq)] = {table.kept - copies_last, table.taken + needed, false};
    impl_->available -= needed * groups;
  }
  for (std::size_t i = last; writes_last && i < real.blocks.size(); ++i) {
    if (real.borrows) continue;  // it stays where it is while the step copies from it
    if (copies_last) {
      if (impl_->touch(real.blocks[i]).references == 1) impl_->touch(real.blocks[i]).fenced = true;  // by this step
      impl_->release(real.blocks[i], StepId{0});
    } else if (impl_->kv->pool.is_cached(real.blocks[i])) {
      impl_->touch(real.blocks[i]).withdrawn = true;
    }
  }
  return true;
}

bool KvScratch::create(const PrefixMatch& match, std::uint32_t length, std::uint64_t spare) {
  const std::uint32_t groups = impl_->kv->groups;
  const std::uint32_t size = impl_->kv->blocks_for(length);
  const std::uint32_t full = match.num_tokens / impl_->kv->config.block_size;
  const std::uint64_t taken = length > match.num_tokens ? std::uint64_t{size - full} * groups : 0;
  std::uint64_t needed = taken;
  for (std::size_t i = 0; i < match.blocks.size(); ++i) {
    const BlockId id = match.blocks[i];
    if (id == kNoBlock) continue;
    const Impl::Block* touched = impl_->blocks.find(raw(id));
    if (touched != nullptr && touched->withdrawn) return false;
    needed += touched != nullptr ? touched->references == 0 && touched->available : impl_->kv->pool.is_reusable(id);
  }
  if (needed + spare > impl_->available) return false;
  for (std::size_t i = 0; i < match.blocks.size(); ++i) {
    const BlockId id = match.blocks[i];
    if (id == kNoBlock) continue;
    if (i < std::size_t{full} * groups) {
      impl_->hold(id);
      continue;
    }
    // Borrowed until the step has copied from it.
    Impl::Block& block = impl_->touch(id);
    if (block.references == 0 && block.available) --impl_->available;
    block.available = false;
    block.fenced = true;
  }
  impl_->available -= static_cast<std::uint32_t>(taken);
  return true;
}

bool KvScratch::fork(SequenceId parent, std::uint32_t num_tokens, std::uint32_t length, std::uint64_t spare) {
  const kv::BlockTable& real = impl_->kv->table(parent);
  const Impl::Table table = impl_->table(real);
  const std::uint32_t groups = impl_->kv->groups;
  const std::uint32_t shared = impl_->kv->blocks_for(num_tokens);
  if (table.freed || real.swapped || shared > table.kept || impl_->kv->reservations)
    return false;  // only what the manager holds can be shared
  const bool copies_last = length > num_tokens && impl_->kv->is_partial(num_tokens);
  const std::uint32_t size = impl_->kv->blocks_for(length);
  const std::uint32_t needed = (size > shared ? size - shared : 0) + copies_last;
  if (std::uint64_t{needed} * groups + spare > impl_->available) return false;
  for (std::size_t i = 0; i < std::size_t{shared - copies_last} * groups; ++i) {
    if (real.blocks[i] != kNoBlock) impl_->hold(real.blocks[i]);
  }
  impl_->available -= needed * groups;
  return true;
}

bool KvScratch::reserve(std::uint32_t count, std::uint32_t tokens) {
  kv::BuddyAllocator::Counts counts = impl_->chunks;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (!kv::BuddyAllocator::take(counts, impl_->kv->reservation_order(tokens))) return false;
  }
  impl_->chunks = counts;
  return true;
}

void KvScratch::free(SequenceId seq, StepId last_reader) {
  const kv::BlockTable& real = impl_->kv->table(seq);
  const Impl::Table table = impl_->table(real);
  if (table.freed) return;
  const std::uint32_t groups = impl_->kv->groups;
  impl_->tables[raw(seq)] = {0, 0, true};
  for (std::size_t i = std::size_t{table.kept} * groups; i-- > 0;) {
    if (real.blocks[i] == kNoBlock) continue;
    if (real.borrows && i / groups == real.length / impl_->kv->config.block_size)
      --impl_->touch(real.blocks[i]).borrows;
    impl_->release(real.blocks[i], last_reader);
  }
  impl_->available += table.taken * groups;
  // A slot of several sequences comes free with the last of them: not counted on here.
}

bool KvScratch::swap_out(std::span<const SequenceId> group, StepId last_reader) {
  const std::uint32_t groups = impl_->kv->groups;
  // As if nothing had been appended here: a last block that was to be copied is theirs again.
  kv::FlatMap<std::uint32_t> ours;  // references that the group holds, by block
  for (const SequenceId seq : group) {
    const kv::BlockTable& real = impl_->kv->table(seq);
    if (impl_->table(real).freed || real.swapped || real.borrows) return false;
    for (const BlockId block : real.blocks) {
      if (block != kNoBlock) ++ours[raw(block)];
    }
  }
  for (const SequenceId seq : group) {
    const kv::BlockTable& real = impl_->kv->table(seq);
    const Impl::Table table = impl_->table(real);
    impl_->tables[raw(seq)] = {static_cast<std::uint32_t>(real.blocks.size() / groups), 0, false};
    impl_->available += table.taken * groups;
    for (std::size_t i = std::size_t{table.kept} * groups; i < real.blocks.size(); ++i) impl_->hold(real.blocks[i]);
  }
  std::uint32_t needed = 0;
  const auto references = [&](BlockId block) {
    const Impl::Block* touched = impl_->blocks.find(raw(block));
    return touched != nullptr ? touched->references : impl_->kv->pool.references(block);
  };
  kv::FlatMap<std::uint8_t> moved;
  for (const SequenceId seq : group) {
    for (const BlockId block : impl_->kv->table(seq).blocks) {
      if (block == kNoBlock || references(block) != *ours.find(raw(block)) || moved.find(raw(block)) != nullptr)
        continue;
      moved[raw(block)] = 1;
      ++needed;
    }
  }
  if (needed > impl_->slots) return false;
  impl_->slots -= needed;
  for (const SequenceId seq : group) {
    const kv::BlockTable& real = impl_->kv->table(seq);
    for (std::size_t i = real.blocks.size(); i-- > 0;) {
      if (real.blocks[i] != kNoBlock && moved.find(raw(real.blocks[i])) != nullptr) {
        impl_->release(real.blocks[i], last_reader);
      }
    }
    impl_->tables[raw(seq)] = {0, 0, true};  // of no further use in this plan
  }
  return true;
}

bool KvScratch::swap_in(std::span<const SequenceId> group, std::uint64_t spare) {
  kv::FlatMap<std::uint8_t> slots;
  for (const SequenceId seq : group) {
    const kv::BlockTable& real = impl_->kv->table(seq);
    const Impl::Table* touched = impl_->tables.find(raw(seq));
    if (!real.swapped || (touched != nullptr && touched->freed)) return false;
    for (const SwapSlot slot : real.slots) {
      if (slot != kNoSlot) slots[raw(slot)] = 1;
    }
  }
  if (slots.size() + spare > impl_->available) return false;
  impl_->available -= static_cast<std::uint32_t>(slots.size());
  return true;
}

}  // namespace pagedcore
