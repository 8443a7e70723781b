// The contiguous baselines of PagedAttention, section 6.1: the same tables, but the blocks of a sequence follow one
// another in a chunk that is set aside as long as it lives, and nothing is shared.
#include <algorithm>
#include <bit>

#include "base/text.hpp"
#include "kv/manager.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

using kv::BlockTable;
using kv::BuddyAllocator;
using kv::Chunk;

std::uint32_t KvCacheManager::reservation(std::uint32_t prompt, std::uint32_t max_output) const noexcept {
  const std::uint64_t limit = impl_->config.max_reservation;
  const std::uint64_t exact = std::uint64_t{prompt} + max_output;
  std::uint64_t tokens = exact;
  switch (impl_->config.allocation) {
    case AllocationPolicy::paged:
      return static_cast<std::uint32_t>(std::min<std::uint64_t>(exact, 0xffffffffu));
    case AllocationPolicy::max:
      tokens = limit;
      break;
    case AllocationPolicy::pow2:
      tokens = prompt + std::bit_ceil(std::uint64_t{max_output});
      break;
    case AllocationPolicy::oracle:
      break;
  }
  return static_cast<std::uint32_t>(std::min(tokens, limit));
}

std::uint32_t KvCacheManager::Impl::reservation_order(std::uint32_t tokens) const noexcept {
  return BuddyAllocator::order_of(blocks_for(tokens));
}

void KvCacheManager::create_reserved(SequenceId seq, std::uint32_t count, std::uint32_t tokens) {
  Impl& kv = *impl_;
  if (!kv.reservations) throw InvalidArgument("a paged cache reserves nothing; create() the sequence");
  if (count == 0 || tokens == 0 || tokens > kv.config.max_reservation) {
    throw InvalidArgument(str("a reservation of ", count, " x ", tokens,
                              " tokens; it has one sequence at least, of 1 to ", kv.config.max_reservation,
                              " tokens (max_reservation)"));
  }
  const std::uint32_t order = kv.reservation_order(tokens);
  kv.new_table(seq, std::size_t{1} << order);
  std::uint32_t group = 0;
  bool done = false;
  try {
    done = kv.reservations->create(count, order, group);
  } catch (...) {
    kv.drop_table(seq);
    throw;
  }
  if (!done) {
    kv.drop_table(seq);
    throw OutOfMemory(str("sequence ", raw(seq), " needs ", count, " chunk(s) of ", 1u << order, " KV blocks, but of ",
                          kv.reservations->buddy().available(), " free blocks too few lie together; free() a group"));
  }
  BlockTable& table = kv.table(seq);
  table.reservation = group;
  table.chunk = kv.reservations->take(group, 0);
}

/// A block more is the next one of the chunk. A fork first moves to a chunk of its own: one whose blocks nobody else is
/// still going to copy. There is one: a sequence whose blocks are waited for and that is gone has left its chunk.
void KvCacheManager::Impl::append_reserved(BlockTable& table, std::uint32_t length, std::vector<BlockCopy>& copies,
                                           StepId reader) {
  const std::uint32_t order = reservations->order(table.reservation);
  const std::uint32_t size = blocks_for(length);
  if (length < table.length || size > (1u << order)) {
    throw InvalidArgument(str("append to length ", length, " of sequence ", raw(table.sequence), ", which has length ",
                              table.length, " and a chunk for ", (1u << order) * config.block_size,
                              "; reserve for the longest it may become"));
  }
  if (length == table.length) return;
  kv::grow_capacity(table.blocks, size);
  if (table.lacks_chunk) {
    const std::vector<Chunk>& spare = reservations->spare(table.reservation);
    const auto unread = std::ranges::find_if(spare, [&](const Chunk& chunk) {
      for (std::uint32_t i = 0; i < chunk.size(); ++i) {
        if (pool.references(BlockId{chunk.first + i}) > 0) return false;
      }
      return true;
    });
    if (unread == spare.end()) {
      throw OutOfMemory(str("sequence ", raw(table.sequence), " is one more than its group has chunks for"));
    }
    kv::grow_capacity(copies, copies.size() + table.blocks.size());
    table.chunk = reservations->take(table.reservation, static_cast<std::size_t>(unread - spare.begin()));
    table.lacks_chunk = false;
    for (std::uint32_t i = 0; i < table.blocks.size(); ++i) {
      const BlockId source = table.blocks[i], own{table.chunk.first + i};
      copies.push_back({source, own, std::min(config.block_size, table.length - i * config.block_size)});
      pool.hold(own);
      pool.release(source, pool.references(source) > 1 ? StepId{0} : reader);
      table.blocks[i] = own;
    }
  }
  for (auto i = static_cast<std::uint32_t>(table.blocks.size()); i < size; ++i) {
    const BlockId block{table.chunk.first + i};
    pool.hold(block);
    table.blocks.push_back(block);
  }
  table.length = length;
}

}  // namespace pagedcore
