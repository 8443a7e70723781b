#include "kv/reserved.hpp"

#include <algorithm>
#include <bit>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::kv {
namespace {

const KvCacheConfig& validated(const KvCacheConfig& config) {
  if (config.num_swap_blocks > 0 || config.windows.size() > 1 || (!config.windows.empty() && config.windows[0] > 0)) {
    throw InvalidArgument(
        str("contiguous allocation with ", config.num_swap_blocks, " swap blocks and ", config.windows.size(),
            " groups of layers; it swaps nothing and knows one group with full context: use paged allocation"));
  }
  return config;
}

/// Everything is tried when a sequence is created; afterwards nothing can be short.
class ReservedScratch final : public Scratch {
 public:
  explicit ReservedScratch(const ReservedCache& cache) : Scratch(cache), kv_(cache), chunks_(cache.buddy().counts()) {}

  bool append(SequenceId seq, std::uint32_t) override {
    static_cast<void>(kv_.table(seq));  // throws for one that is unknown
    return freed_.find(raw(seq)) == nullptr;
  }
  bool create(const PrefixMatch&, std::uint32_t, std::uint64_t, const KvGroup& group) override {
    BuddyAllocator::Counts counts = chunks_;
    for (std::uint32_t i = 0; i < group.sequences; ++i) {
      if (!BuddyAllocator::take(counts, kv_.order_of(group.tokens))) return false;
    }
    chunks_ = counts;
    return true;
  }
  bool fork(SequenceId, std::uint32_t, std::uint32_t, std::uint64_t) override { return false; }
  void free(SequenceId seq, StepId) override { freed_[raw(seq)] = true; }
  bool swap_out(std::span<const SequenceId>, StepId) override { return false; }
  bool swap_in(std::span<const SequenceId>, std::uint64_t) override { return false; }

 private:
  const ReservedCache& kv_;
  BuddyAllocator::Counts chunks_;  // free ones; those of a group that is freed here are not counted on
  FlatMap<bool> freed_;
};

}  // namespace

ReservedCache::ReservedCache(const KvCacheConfig& config_)
    : Cache(validated(config_)),
      reservations(config.num_blocks, BuddyAllocator::order_of(blocks_for(config.max_reservation))),
      empty_counts(reservations.buddy().counts()) {}

KvCacheCounts ReservedCache::counts() const noexcept {
  KvCacheCounts counts = pool.counts();
  counts.reserved = counts.total - buddy().available();
  return counts;
}

std::uint32_t ReservedCache::reservation(std::uint32_t prompt, std::uint32_t max_output) const noexcept {
  const std::uint64_t limit = config.max_reservation;
  std::uint64_t tokens = std::uint64_t{prompt} + max_output;  // exactly: the oracle's
  if (config.allocation == AllocationPolicy::max) tokens = limit;
  if (config.allocation == AllocationPolicy::pow2) tokens = prompt + std::bit_ceil(std::uint64_t{max_output});
  return static_cast<std::uint32_t>(std::min(tokens, limit));
}

KvSetAside ReservedCache::set_aside(std::uint32_t prompt, std::uint32_t max_output,
                                    std::uint32_t length) const noexcept {
  const std::uint64_t will_be = std::uint64_t{prompt} + max_output;
  return {.needed = will_be - length, .unneeded = reservation(prompt, max_output) - will_be};
}

std::string ReservedCache::why_never(std::uint32_t sequences, std::uint32_t prompt, std::uint32_t max_output) const {
  const std::uint64_t context = std::uint64_t{prompt} + max_output;
  if (context > config.max_reservation) {
    return str("a prompt of ", prompt, " tokens and max_tokens = ", max_output, " make ", context,
               ", but a reservation has at most ", config.max_reservation,
               " (max_reservation); lower max_tokens or raise that");
  }
  const std::uint32_t tokens = reservation(prompt, max_output), order = order_of(tokens);
  BuddyAllocator::Counts left = empty_counts;
  for (std::uint32_t i = 0; i < sequences; ++i) {
    if (BuddyAllocator::take(left, order)) continue;
    return str("its ", sequences, " sequence(s) reserve ", tokens, " tokens each, a chunk of ", 1u << order,
               " KV blocks of ", config.block_size, " tokens, but an empty cache of ", config.num_blocks, " has ", i,
               " such chunks; lower max_tokens or the number of samples, or enlarge the cache");
  }
  return {};
}

std::uint32_t ReservedCache::order_of(std::uint32_t tokens) const noexcept {
  return BuddyAllocator::order_of(blocks_for(tokens));
}

void ReservedCache::prepare(SequenceId seq, std::uint32_t, std::uint64_t, const PrefixMatch&, const KvGroup& group) {
  if (group.sequences == 0 && group.tokens == 0) {
    throw InvalidArgument("a contiguous cache makes no sequence without its chunk; create_reserved() it");
  }
  if (group.sequences == 0 || group.tokens == 0 || group.tokens > config.max_reservation) {
    throw InvalidArgument(str("a reservation of ", group.sequences, " x ", group.tokens,
                              " tokens; it has one sequence at least, of 1 to ", config.max_reservation,
                              " tokens (max_reservation)"));
  }
  new_table(seq, std::size_t{1} << order_of(group.tokens));
  try {
    Holding& holding = holdings[raw(seq)];
    holding.reservation = reservations.prepare(group.sequences);
  } catch (...) {
    holdings.erase(raw(seq));
    drop_table(seq);
    throw;
  }
}

void ReservedCache::start(BlockTable& table, std::uint64_t, const PrefixMatch&, const KvGroup& group) {
  Holding& holding = *holdings.find(raw(table.sequence));
  const std::uint32_t order = order_of(group.tokens);
  if (!reservations.start(holding.reservation, order)) {
    throw OutOfMemory(str("sequence ", raw(table.sequence), " needs ", group.sequences, " chunk(s) of ", 1u << order,
                          " KV blocks, but of ", buddy().available(),
                          " free blocks too few lie together; free() a group"));
  }
  holding.started = true;
  holding.has_chunk = true;
  holding.chunk = reservations.take(holding.reservation, 0);
}

void ReservedCache::prepare_fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens) {
  const BlockTable& source = table(parent);
  refuse_long_fork(source, num_tokens);
  new_table(child, blocks_for(num_tokens));
  try {
    holdings[raw(child)] = {};
  } catch (...) {
    drop_table(child);
    throw;
  }
}

void ReservedCache::start_fork(BlockTable& parent, BlockTable& child, std::uint32_t num_tokens, const std::uint64_t*) {
  Holding& holding = *holdings.find(raw(child.sequence));
  holding.reservation = holdings.find(raw(parent.sequence))->reservation;
  holding.started = true;
  reservations.join(holding.reservation);
  for (std::uint32_t i = 0; i < blocks_for(num_tokens); ++i) {
    child.blocks.push_back(parent.blocks[i]);
    pool.hold(parent.blocks[i]);
  }
  child.length = num_tokens;
}

/// A block more is the next one of the chunk.
void ReservedCache::append(BlockTable& table, std::uint32_t length, std::vector<BlockCopy>& copies, StepId reader) {
  Holding& holding = *holdings.find(raw(table.sequence));
  const std::uint32_t order = holding.started ? reservations.order(holding.reservation) : 0;
  const std::uint32_t size = blocks_for(length);
  if (length < table.length) {
    throw InvalidArgument(str("append to length ", length, " of sequence ", raw(table.sequence), ", which has length ",
                              table.length, " already; a table only grows (fork() a shorter prefix instead)"));
  }
  if (!holding.started || size > (1u << order)) {
    throw InvalidArgument(str("append to length ", length, " of sequence ", raw(table.sequence), ", which has length ",
                              table.length, " and a chunk for ", (1u << order) * config.block_size,
                              "; reserve for the longest it may become"));
  }
  if (length == table.length) return;
  grow_capacity(table.blocks, size);
  if (!holding.has_chunk) move_to_chunk(table, holding, copies, reader);
  for (auto i = static_cast<std::uint32_t>(table.blocks.size()); i < size; ++i) {
    const BlockId block{holding.chunk.first + i};
    pool.hold(block);
    table.blocks.push_back(block);
  }
  table.length = length;
}

/// A fork moves to a chunk of its own before it grows: one whose blocks nobody else is still going to copy. There is
/// one: a sequence whose blocks are waited for and that is gone has left its chunk.
void ReservedCache::move_to_chunk(BlockTable& table, Holding& holding, std::vector<BlockCopy>& copies, StepId reader) {
  const std::vector<Chunk>& spare = reservations.spare(holding.reservation);
  const auto unread = std::ranges::find_if(spare, [&](const Chunk& chunk) {
    for (std::uint32_t i = 0; i < chunk.size(); ++i) {
      if (pool.references(BlockId{chunk.first + i}) > 0) return false;
    }
    return true;
  });
  if (unread == spare.end()) {
    throw OutOfMemory(str("sequence ", raw(table.sequence), " is one more than its group has chunks for"));
  }
  grow_capacity(copies, copies.size() + table.blocks.size());
  holding.chunk = reservations.take(holding.reservation, static_cast<std::size_t>(unread - spare.begin()));
  holding.has_chunk = true;
  for (std::uint32_t i = 0; i < table.blocks.size(); ++i) {
    const BlockId source = table.blocks[i], own{holding.chunk.first + i};
    copies.push_back({source, own, std::min(config.block_size, table.length - i * config.block_size)});
    pool.hold(own);
    pool.release(source, pool.references(source) > 1 ? StepId{0} : reader);
    table.blocks[i] = own;
  }
}

void ReservedCache::release(BlockTable& table, StepId last_reader) {
  for (std::size_t i = table.blocks.size(); i-- > 0;) pool.release(table.blocks[i], last_reader);
  const Holding& holding = *holdings.find(raw(table.sequence));
  if (holding.started) {
    reservations.leave(holding.reservation, holding.has_chunk ? &holding.chunk : nullptr, last_reader);
  } else if (holding.reservation != Holding::kNone) {
    reservations.cancel(holding.reservation);
  }
  holdings.erase(raw(table.sequence));
}

void ReservedCache::complete(StepId step) noexcept {
  Cache::complete(step);
  reservations.complete(step);
}

void ReservedCache::swap_out(std::span<const SequenceId>, std::vector<BlockSwap>&, StepId) {
  throw OutOfMemory("a contiguous cache has no swap space; free() the sequences to be recomputed");
}

void ReservedCache::swap_in(std::span<const SequenceId>, std::vector<BlockSwap>&) {
  throw InvalidArgument("a contiguous cache has no swap space; its sequences are all in memory");
}

std::unique_ptr<Scratch> ReservedCache::scratch() const { return std::make_unique<ReservedScratch>(*this); }

/// Every chunk has one owner, and blocks lie in the chunk of their sequence, in order.
void ReservedCache::check_rest() const {
  reservations.check();
  std::vector<std::uint8_t> reserved(pool.size());
  for (const BlockTable& table : tables) {
    if (!table.live) continue;
    const auto id = raw(table.sequence);
    const Holding* holding = holdings.find(id);
    if (holding == nullptr) throw Corrupt(str("sequence ", id, " has no place in a group"));
    if (!holding->has_chunk) continue;
    for (std::uint32_t i = 0; i < holding->chunk.size(); ++i) {
      const std::uint32_t block = holding->chunk.first + i;
      if (reserved.at(block)++ > 0) throw Corrupt(str("sequence ", id, " shares its chunk"));
      if (i < table.blocks.size() && raw(table.blocks[i]) != block) {
        throw Corrupt(str("sequence ", id, " has a block ", i, " outside its chunk"));
      }
    }
  }
}

}  // namespace pagedcore::kv
