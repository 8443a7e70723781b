#include "kv/paged.hpp"

#include "base/text.hpp"
#include "kv/scratch.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::kv {

PagedCache::PagedCache(const KvCacheConfig& config_)
    : Cache(config_), swap(config.num_swap_blocks), marks(config.num_blocks) {
  if (!config.enable_prefix_caching) return;
  index.emplace(config.num_blocks, config.block_size, groups, config.prefix_hash, config.max_events);
}

KvCacheCounts PagedCache::counts() const noexcept {
  KvCacheCounts counts = pool.counts();
  counts.swap_total = swap.size();
  counts.swapped = counts.swap_total - swap.available();
  return counts;
}

std::uint32_t PagedCache::reservation(std::uint32_t prompt, std::uint32_t max_output) const noexcept {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(std::uint64_t{prompt} + max_output, 0xffffffffu));
}

/// The next reusable block, its cached contents forgotten.
BlockId PagedCache::take() {
  const BlockId block = pool.next();
  if (raw(block) < pool.size() && pool.is_cached(block)) withdraw(block);
  return pool.take();
}

void PagedCache::prepare(SequenceId seq, std::uint32_t length, std::uint64_t salt, const PrefixMatch& match,
                         const KvGroup&) {
  verify(match, salt);
  new_table(seq, std::max(match.blocks.size(), std::size_t{blocks_for(length)} * groups));
}

void PagedCache::start(BlockTable& table, std::uint64_t salt, const PrefixMatch& match, const KvGroup&) {
  const std::uint32_t full = match.num_tokens / config.block_size;
  const std::size_t shared = std::size_t{full} * groups;
  for (std::size_t i = 0; i < match.blocks.size(); ++i) {
    const BlockId block = match.blocks[i];
    table.blocks.push_back(block);
    if (block == kNoBlock) continue;
    if (i < shared) {
      pool.hold(block);
    } else {
      pool.borrow(block);
    }
  }
  table.borrows = match.blocks.size() > shared;
  table.length = match.num_tokens;
  table.salt = salt;
  table.published = full;
  table.tail = full == 0 ? PrefixLink::root(salt) : index->link(table.blocks[shared - groups]);
}

void PagedCache::append(BlockTable& table, std::uint32_t length, std::vector<BlockCopy>& copies, StepId reader) {
  if (grows_in_place(table, length)) {
    table.length = length;
  } else {
    grow(table, length, copies, reader);
  }
}

void PagedCache::grow(BlockTable& table, std::uint32_t length, std::vector<BlockCopy>& copies, StepId reader) {
  refuse_swapped(table);
  if (length < table.length) {
    throw InvalidArgument(str("append to length ", length, " of sequence ", raw(table.sequence), ", which has length ",
                              table.length, " already; a table only grows (fork() a shorter prefix instead)"));
  }
  if (length == table.length) return;
  const std::size_t had = table.blocks.size();
  const bool writes_last = is_partial(table.length);
  const bool copies_it = writes_last && copies_last(table, [&](BlockId block) { return pool.holders(block); });
  const std::size_t size = std::size_t{blocks_for(length)} * groups;
  const std::uint64_t needed = size - had + (copies_it ? groups : 0);
  if (needed > pool.available()) {
    throw OutOfMemory(str("sequence ", raw(table.sequence), " needs ", needed, " more KV blocks to grow from ",
                          table.length, " to ", length, " tokens, but ", pool.available(), " of ", pool.size(),
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
    } else if (pool.is_cached(last)) {
      // It held more in a longer parent that is gone; we own it alone and overwrite what was published.
      withdraw(last);
    }
  }
  table.borrows = false;
  while (table.blocks.size() < size) table.blocks.push_back(take());
  table.length = length;
  table.own_slots = blocks_for(length) * config.block_size;
}

void PagedCache::prepare_fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens) {
  const BlockTable& source = resident_table(parent);
  refuse_long_fork(source, num_tokens);
  const std::uint32_t size = blocks_for(num_tokens);
  for (std::uint32_t group = 0; group < groups; ++group) {
    for (std::uint32_t i = first_visible(group, num_tokens); i < size; ++i) {
      if (source.blocks[std::size_t{i} * groups + group] != kNoBlock) continue;
      throw InvalidArgument(str("fork at ", num_tokens, " tokens of sequence ", raw(parent), ": its window of ",
                                windows[group], " tokens has passed block ", i, "; fork nearer to its length of ",
                                source.length));
    }
  }
  new_table(child, std::size_t{size} * groups);
}

void PagedCache::start_fork(BlockTable& parent, BlockTable& child, std::uint32_t num_tokens,
                            const std::uint64_t* salt) {
  const std::uint32_t size = blocks_for(num_tokens), full = num_tokens / config.block_size;
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
  parent.own_slots = 0;
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

void PagedCache::release(BlockTable& table, StepId last_reader) {
  // Tail first: the end of a prefix is evicted before its beginning, without which it is of no use.
  for (std::size_t i = table.blocks.size(); i-- > 0;) {
    const bool is_last = i / groups == table.length / config.block_size;
    if (table.blocks[i] == kNoBlock) continue;
    if (table.borrows && is_last) {
      pool.give_back(table.blocks[i], last_reader);
    } else {
      pool.release(table.blocks[i], last_reader);
    }
  }
  for (const SwapSlot held : table.slots) {
    if (held != kNoSlot) swap.release(held);
  }
}

std::unique_ptr<Scratch> PagedCache::scratch() const { return std::make_unique<PagedScratch>(*this); }

}  // namespace pagedcore::kv
