// The contiguous baselines of PagedAttention, section 6.1: the same tables, but the blocks of a sequence follow one
// another in a chunk that is set aside as long as it lives. Nothing is shared, published or swapped.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kv/buddy_allocator.hpp"
#include "kv/cache.hpp"
#include "kv/flat_map.hpp"
#include "kv/reservations.hpp"

namespace pagedcore::kv {

class ReservedCache final : public Cache {
 public:
  explicit ReservedCache(const KvCacheConfig& config);

  KvTraits traits() const noexcept override { return {.shares = false, .grows = false}; }
  KvCacheCounts counts() const noexcept override;
  std::uint32_t reservation(std::uint32_t prompt, std::uint32_t max_output) const noexcept override;
  KvSetAside set_aside(std::uint32_t prompt, std::uint32_t max_output, std::uint32_t length) const noexcept override;
  std::string why_never(std::uint32_t sequences, std::uint32_t prompt, std::uint32_t max_output) const override;
  /// A fork copies all it has.
  std::size_t most_copies(std::size_t, std::size_t blocks) const noexcept override { return blocks; }

  void prepare(SequenceId seq, std::uint32_t length, std::uint64_t salt, const PrefixMatch& match,
               const KvGroup& group) override;
  void start(BlockTable& table, std::uint64_t salt, const PrefixMatch& match, const KvGroup& group) override;
  void prepare_fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens) override;
  void start_fork(BlockTable& parent, BlockTable& child, std::uint32_t num_tokens, const std::uint64_t* salt) override;
  void append(BlockTable& table, std::uint32_t length, std::vector<BlockCopy>& copies, StepId reader) override;
  void release(BlockTable& table, StepId last_reader) override;
  void complete(StepId step) noexcept override;

  void swap_out(std::span<const SequenceId> group, std::vector<BlockSwap>& moves, StepId last_reader) override;
  void swap_in(std::span<const SequenceId> group, std::vector<BlockSwap>& moves) override;
  std::unique_ptr<Scratch> scratch() const override;

  const BuddyAllocator& buddy() const noexcept { return reservations.buddy(); }
  std::uint32_t order_of(std::uint32_t tokens) const noexcept;

 protected:
  void check_rest() const override;
  bool has_content(BlockId) const override { return false; }

 private:
  /// Of one sequence: the chunk that its blocks are taken from, in order, and the reservation that it belongs to.
  struct Holding {
    static constexpr std::uint32_t kNone = 0xffffffff;
    std::uint32_t reservation = kNone;  // kNone: a fork that is not started
    bool started = false;
    bool has_chunk = false;  // else a fork that lists its parent's blocks until its first append()
    Chunk chunk;
  };
  void move_to_chunk(BlockTable& table, Holding& holding, std::vector<BlockCopy>& copies, StepId reader);

  Reservations reservations;
  BuddyAllocator::Counts empty_counts;  // chunks of an empty cache
  FlatMap<Holding> holdings;            // by SequenceId
};

}  // namespace pagedcore::kv
