#include "kv/manager.hpp"

#include <algorithm>
#include <limits>
#include <new>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

using kv::BlockTable;
using kv::grow_capacity;
using kv::PrefixLink;

const KvCacheConfig& validated(const KvCacheConfig& config) {
  if (config.num_blocks == 0 || config.num_blocks == raw(kNoBlock)) {
    throw InvalidArgument(str("num_blocks is ", config.num_blocks, "; it must be in [1, ", raw(kNoBlock) - 1, "]"));
  }
  if (config.block_size == 0 || config.block_size > 65536) {
    throw InvalidArgument(str("block_size is ", config.block_size, "; it must be in [1, 65536] tokens"));
  }
  if (config.windows.size() > 64) {
    throw InvalidArgument(str("windows names ", config.windows.size(), " groups of layers; there may be 64 at most"));
  }
  if (config.num_swap_blocks >= 0x80000000u) {
    throw InvalidArgument(str("num_swap_blocks is ", config.num_swap_blocks, "; it must be below 2^31"));
  }
  if (config.allocation == AllocationPolicy::paged) return config;
  if (config.max_reservation == 0) throw InvalidArgument("max_reservation is 0; a sequence has one token at least");
  if (config.num_swap_blocks > 0 || config.windows.size() > 1 || (!config.windows.empty() && config.windows[0] > 0)) {
    throw InvalidArgument(
        str("contiguous allocation with ", config.num_swap_blocks, " swap blocks and ", config.windows.size(),
            " groups of layers; it swaps nothing and knows one group with full context: use paged allocation"));
  }
  return config;
}

}  // namespace

KvCacheManager::Impl::Impl(const KvCacheConfig& config_)
    : config(validated(config_)),
      groups(std::max<std::uint32_t>(1, static_cast<std::uint32_t>(config.windows.size()))),
      windows(config.windows.empty() ? std::vector<std::uint32_t>{0} : config.windows),
      has_windows(std::ranges::any_of(windows, [](std::uint32_t window) { return window > 0; })),
      pool(config.num_blocks),
      swap(config.num_swap_blocks),
      marks(config.num_blocks) {
  if (config.allocation != AllocationPolicy::paged) {
    reservations.emplace(config.num_blocks, kv::BuddyAllocator::order_of(blocks_for(config.max_reservation)));
  } else if (config.enable_prefix_caching) {
    index.emplace(config.num_blocks, config.block_size, groups, config.prefix_hash, config.max_events);
  }
}

std::uint32_t KvCacheManager::Impl::blocks_for(std::uint64_t tokens) const noexcept {
  if (tokens < 0x80000000u) {  // 32-bit division takes a third of the time
    return (static_cast<std::uint32_t>(tokens) + config.block_size - 1) / config.block_size;
  }
  const std::uint64_t blocks = tokens / config.block_size + (tokens % config.block_size != 0);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(blocks, std::numeric_limits<std::uint32_t>::max()));
}

std::uint32_t KvCacheManager::Impl::first_visible(std::uint32_t group, std::uint32_t next) const noexcept {
  const std::uint32_t window = windows[group];
  return window == 0 || next < window ? 0 : (next - window + 1) / config.block_size;
}

const BlockTable& KvCacheManager::Impl::table(SequenceId seq) const {
  if (const std::uint32_t* slot = slots.find(raw(seq))) return tables[*slot];
  throw InvalidArgument(str("sequence ", raw(seq), " is unknown; create() or fork() it first"));
}

BlockTable& KvCacheManager::Impl::table(SequenceId seq) {
  return const_cast<BlockTable&>(std::as_const(*this).table(seq));
}

void KvCacheManager::Impl::refuse_swapped(const BlockTable& table) {
  if (!table.swapped) return;
  throw InvalidArgument(
      str("sequence ", raw(table.sequence), " is swapped out; swap_in() its group before it is used"));
}

BlockTable& KvCacheManager::Impl::resident_table(SequenceId seq) {
  BlockTable& found = table(seq);
  refuse_swapped(found);
  return found;
}

/// An empty table with room for `num_blocks`. Everything that may throw comes first; only then `seq` is known.
BlockTable& KvCacheManager::Impl::new_table(SequenceId seq, std::size_t num_blocks) {
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

/// The next reusable block, its cached contents forgotten.
BlockId KvCacheManager::Impl::take() {
  const BlockId block = pool.next();
  if (raw(block) < pool.size() && pool.is_cached(block)) withdraw(block);
  return pool.take();
}

KvCacheManager::KvCacheManager(const KvCacheConfig& config) try : impl_(std::make_unique<Impl>(config)) {
} catch (const std::bad_alloc&) {
  throw OutOfMemory(str("no host memory for the tables of ", config.num_blocks, " KV blocks of ", config.block_size,
                        " tokens; lower num_blocks"));
}
KvCacheManager::~KvCacheManager() = default;
KvCacheManager::KvCacheManager(KvCacheManager&&) noexcept = default;
KvCacheManager& KvCacheManager::operator=(KvCacheManager&&) noexcept = default;

const KvCacheConfig& KvCacheManager::config() const noexcept { return impl_->config; }
KvCacheCounts KvCacheManager::counts() const noexcept {
  KvCacheCounts counts = impl_->pool.counts();
  counts.swap_total = impl_->swap.size();
  counts.swapped = counts.swap_total - impl_->swap.available();
  if (impl_->reservations) counts.reserved = counts.total - impl_->reservations->buddy().available();
  return counts;
}
std::uint32_t KvCacheManager::available() const noexcept { return impl_->pool.available(); }
std::uint32_t KvCacheManager::blocks_for(std::uint64_t tokens) const noexcept { return impl_->blocks_for(tokens); }
std::uint32_t KvCacheManager::num_groups() const noexcept { return impl_->groups; }

std::uint64_t KvCacheManager::footprint(std::uint64_t tokens) const noexcept {
  if (!impl_->has_windows) return std::uint64_t{impl_->blocks_for(tokens)} * impl_->groups;
  std::uint64_t blocks = 0;
  for (const std::uint32_t window : impl_->windows) {
    // The window - 1 tokens before the next one begin and end inside a block.
    const std::uint64_t all = impl_->blocks_for(tokens);
    blocks += window == 0 ? all : std::min<std::uint64_t>(all, std::uint64_t{impl_->blocks_for(window)} + 1);
  }
  return blocks;
}

bool KvCacheManager::contains(SequenceId seq) const noexcept { return impl_->slots.find(raw(seq)) != nullptr; }
std::uint32_t KvCacheManager::length(SequenceId seq) const { return impl_->table(seq).length; }
bool KvCacheManager::is_swapped(SequenceId seq) const { return impl_->table(seq).swapped; }
std::span<const BlockId> KvCacheManager::block_table(SequenceId seq) const { return impl_->table(seq).blocks; }

std::uint32_t KvCacheManager::references(BlockId block) const {
  if (raw(block) >= impl_->pool.size()) {
    throw InvalidArgument(str("block ", raw(block), " is outside the pool of ", impl_->pool.size(), " blocks"));
  }
  return impl_->pool.references(block);
}

void KvCacheManager::create(SequenceId seq, std::uint64_t salt, const PrefixMatch& match) {
  if (impl_->reservations)
    throw InvalidArgument("a contiguous cache makes no sequence without its chunk; create_reserved() it");
  impl_->verify(match, salt);
  BlockTable& table = impl_->new_table(seq, match.blocks.size());
  const std::uint32_t full = match.num_tokens / impl_->config.block_size;
  const std::size_t shared = std::size_t{full} * impl_->groups;
  for (std::size_t i = 0; i < match.blocks.size(); ++i) {
    const BlockId block = match.blocks[i];
    table.blocks.push_back(block);
    if (block == kNoBlock) continue;
    if (i < shared) {
      impl_->pool.hold(block);
    } else {
      impl_->pool.borrow(block);
    }
  }
  table.borrows = match.blocks.size() > shared;
  table.length = match.num_tokens;
  table.salt = salt;
  table.published = full;
  table.tail = full == 0 ? PrefixLink::root(salt) : impl_->index->link(table.blocks[shared - impl_->groups]);
}

void KvCacheManager::reserve(SequenceId seq, std::uint32_t length) {
  grow_capacity(impl_->table(seq).blocks, std::size_t{impl_->blocks_for(length)} * impl_->groups);
}

void KvCacheManager::append(SequenceId seq, std::uint32_t length, std::vector<BlockCopy>& copies, StepId reader) {
  BlockTable& table = impl_->table(seq);
  if (length > table.length && impl_->grows_in_place(table, length)) {
    table.length = length;
  } else {
    impl_->append(table, length, copies, reader);
  }
}

void KvCacheManager::Impl::append(BlockTable& table, std::uint32_t length, std::vector<BlockCopy>& copies,
                                  StepId reader) {
  const SequenceId seq = table.sequence;
  refuse_swapped(table);
  if (length < table.length) {
    throw InvalidArgument(str("append to length ", length, " of sequence ", raw(seq), ", which has length ",
                              table.length, " already; a table only grows (fork() a shorter prefix instead)"));
  }
  if (reservations) return append_reserved(table, length, copies, reader);
  if (length == table.length) return;
  const std::size_t had = table.blocks.size();
  const bool writes_last = is_partial(table.length);
  const bool copies_it = writes_last && copies_last(table, [&](BlockId block) { return pool.holders(block); });
  const std::size_t size = std::size_t{blocks_for(length)} * groups;
  const std::uint64_t needed = size - had + (copies_it ? groups : 0);
  if (needed > pool.available()) {
    throw OutOfMemory(str("sequence ", raw(seq), " needs ", needed, " more KV blocks to grow from ", table.length,
                          " to ", length, " tokens, but ", pool.available(), " of ", pool.size(),
                          " are available; free() a sequence or use a larger cache"));
  }
  grow_capacity(table.blocks, size);
  if (copies_it) grow_capacity(copies, copies.size() + groups);
  for (std::size_t i = had - groups; writes_last && i < had; ++i) {
    BlockId& last = table.blocks[i];
    if (copies_it) {
      const BlockId copy = take();
      copies.push_back({last, copy, table.length % config.block_size});
      if (table.borrows) {
        pool.give_back(last, reader);
      } else {
        // Where others hold it their releases carry the fence.
        pool.release(last, pool.references(last) > 1 ? StepId{0} : reader);
      }
      last = copy;
    } else if (is_published(last)) {
      // It held more in a longer parent that is gone; we own it alone and overwrite what was published.
      withdraw(last);
    }
  }
  table.borrows = false;
  while (table.blocks.size() < size) table.blocks.push_back(take());
  table.length = length;
}

void KvCacheManager::Impl::fork(SequenceId parent_id, SequenceId child_id, std::uint32_t num_tokens,
                                const std::uint64_t* salt) {
  const BlockTable& source = resident_table(parent_id);
  if (num_tokens > source.length) {
    throw InvalidArgument(str("fork at ", num_tokens, " tokens of sequence ", raw(parent_id), ", which has ",
                              source.length, "; fork at its length or before"));
  }
  const std::uint32_t size = blocks_for(num_tokens), source_reservation = source.reservation;
  for (std::uint32_t group = 0; group < groups; ++group) {
    for (std::uint32_t i = first_visible(group, num_tokens); i < size; ++i) {
      if (source.blocks[std::size_t{i} * groups + group] != kNoBlock) continue;
      throw InvalidArgument(str("fork at ", num_tokens, " tokens of sequence ", raw(parent_id), ": its window of ",
                                windows[group], " tokens has passed block ", i, "; fork nearer to its length of ",
                                source.length));
    }
  }
  BlockTable& child = new_table(child_id, std::size_t{size} * groups);
  if (reservations) {
    child.lacks_chunk = true;
    child.reservation = source_reservation;
    reservations->join(source_reservation);
  }
  const BlockTable& parent = table(parent_id);
  const std::uint32_t full = num_tokens / config.block_size;
  child.borrows = parent.borrows && size == blocks_for(parent.length) && is_partial(num_tokens);
  for (std::size_t i = 0; i < std::size_t{size} * groups; ++i) {
    const BlockId block = parent.blocks[i];
    child.blocks.push_back(block);
    if (block == kNoBlock) continue;
    if (child.borrows && i >= std::size_t{full} * groups) {
      pool.borrow(block);
    } else {
      pool.hold(block);
    }
  }
  child.length = num_tokens;
  child.salt = salt != nullptr ? *salt : parent.salt;
  child.publishes = parent.publishes;
  const BlockId last = full > 0 ? child.blocks[(std::size_t{full} - 1) * groups] : kNoBlock;
  if (child.salt == parent.salt && parent.published <= full) {
    child.published = parent.published;
    child.tail = parent.tail;
  } else if (child.salt == parent.salt && last != kNoBlock && index->contains(last)) {
    child.published = full;
    child.tail = index->link(last);
  } else {
    child.published = 0;  // the next publish() walks from the start
    child.tail = PrefixLink::root(child.salt);
  }
}

void KvCacheManager::fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens) {
  impl_->fork(parent, child, num_tokens, nullptr);
}

void KvCacheManager::fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens, std::uint64_t salt) {
  impl_->fork(parent, child, num_tokens, &salt);
}

void KvCacheManager::slide(SequenceId seq, std::uint32_t next, StepId last_reader) {
  BlockTable& table = impl_->resident_table(seq);
  if (next > table.length) {
    throw InvalidArgument(str("slide to position ", next, " of sequence ", raw(seq), ", which has ", table.length,
                              " tokens; its next position is its length at most"));
  }
  for (std::uint32_t group = 0; group < impl_->groups; ++group) {
    // Blocks go in order, so those before the first that is gone are gone too.
    for (std::uint32_t i = impl_->first_visible(group, next); i-- > 0;) {
      BlockId& block = table.blocks[std::size_t{i} * impl_->groups + group];
      if (block == kNoBlock) break;
      impl_->pool.release(block, last_reader);
      block = kNoBlock;
    }
  }
}

void KvCacheManager::free(SequenceId seq, StepId last_reader) {
  BlockTable& table = impl_->table(seq);
  // Tail first: the end of a prefix is evicted before its beginning, without which it is of no use.
  for (std::size_t i = table.blocks.size(); i-- > 0;) {
    const bool is_last = i / impl_->groups == table.length / impl_->config.block_size;
    if (table.blocks[i] == kNoBlock) continue;
    if (table.borrows && is_last) {
      impl_->pool.give_back(table.blocks[i], last_reader);
    } else {
      impl_->pool.release(table.blocks[i], last_reader);
    }
  }
  for (const SwapSlot held : table.slots) {
    if (held != kNoSlot) impl_->swap.release(held);
  }
  if (impl_->reservations) {
    impl_->reservations->leave(table.reservation, table.lacks_chunk ? nullptr : &table.chunk, last_reader);
  }
  impl_->drop_table(seq);
}

/// Forgets a sequence, but keeps the table's memory for the next one.
void KvCacheManager::Impl::drop_table(SequenceId seq) noexcept {
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

void KvCacheManager::complete(StepId step) noexcept {
  impl_->pool.complete(step);
  if (impl_->reservations) impl_->reservations->complete(step);
}

}  // namespace pagedcore
