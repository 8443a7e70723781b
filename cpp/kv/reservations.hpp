// What the contiguous baselines set aside: for every group of sequences as many equal chunks as it will have members.
#pragma once

#include <cstdint>
#include <vector>

#include "kv/buddy_allocator.hpp"
#include "kv/flat_map.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore::kv {

class Reservations {
 public:
  Reservations(std::uint32_t num_blocks, std::uint32_t max_order) : buddy_(num_blocks, max_order) {}

  const BuddyAllocator& buddy() const noexcept { return buddy_; }
  /// Chunks that groups hold, or that wait for a step.

  /// A new group, without chunks and members, with host memory for `count` chunks: then nothing below can fail. It is
  /// to be started or cancelled.
  std::uint32_t prepare(std::uint32_t count);
  /// All or none: false, and nothing has changed, when there are not as many chunks as it was prepared for. The group
  /// then has one member, and lasts until leave() of its last one.
  bool start(std::uint32_t group, std::uint32_t order);
  void cancel(std::uint32_t group) noexcept;
  void join(std::uint32_t group) noexcept { ++groups_[group].members; }
  /// `chunk` is that of the member, if it has one. The chunks of a group without members are free once `last_reader`,
  /// and those of the members before, have completed. Needs no memory.
  void leave(std::uint32_t group, const Chunk* chunk, StepId last_reader) noexcept;
  void complete(StepId step) noexcept;

  std::uint32_t order(std::uint32_t group) const noexcept { return groups_[group].order; }
  /// Chunks of the group that no member has; take() removes one.
  const std::vector<Chunk>& spare(std::uint32_t group) const noexcept { return groups_[group].spare; }
  Chunk take(std::uint32_t group, std::size_t index) noexcept;

  void check() const;

 private:
  struct Group {
    std::uint32_t order = 0;
    std::uint32_t prepared = 0;  // chunks, until it is started
    std::uint32_t members = 0;
    StepId last_reader{};
    std::vector<Chunk> spare;
  };
  struct Leaving {
    StepId last_reader{};
    Chunk chunk;
  };

  BuddyAllocator buddy_;
  std::vector<Group> groups_;
  std::vector<std::uint32_t> free_groups_;
  std::vector<Leaving> leaving_;  // behind a step in flight
  std::uint32_t num_chunks_ = 0;
  std::uint32_t num_prepared_ = 0;  // of all groups
  std::uint64_t completed_ = 0;
};

}  // namespace pagedcore::kv
