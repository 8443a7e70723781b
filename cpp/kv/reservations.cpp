#include "kv/reservations.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::kv {

std::uint32_t Reservations::prepare(std::uint32_t count) {
  if (free_groups_.empty()) {
    free_groups_.reserve(groups_.size() + 1);
    groups_.emplace_back();
    free_groups_.push_back(static_cast<std::uint32_t>(groups_.size() - 1));
  }
  const std::uint32_t group = free_groups_.back();
  groups_[group].spare.reserve(count);
  leaving_.reserve(std::size_t{num_chunks_} + num_prepared_ + count);
  free_groups_.pop_back();
  groups_[group].prepared = count;
  num_prepared_ += count;
  return group;
}

bool Reservations::start(std::uint32_t index, std::uint32_t order) {
  Group& group = groups_[index];
  BuddyAllocator::Counts counts = buddy_.counts();
  for (std::uint32_t i = 0; i < group.prepared; ++i) {
    if (!BuddyAllocator::take(counts, order)) return false;
  }
  for (std::uint32_t i = 0; i < group.prepared; ++i) group.spare.push_back(buddy_.allocate(order));
  num_chunks_ += group.prepared;
  num_prepared_ -= group.prepared;
  group.prepared = 0;
  group.order = order;
  group.members = 1;
  group.last_reader = StepId{0};
  return true;
}

void Reservations::cancel(std::uint32_t index) noexcept {
  num_prepared_ -= groups_[index].prepared;
  groups_[index].prepared = 0;
  free_groups_.push_back(index);
}

void Reservations::leave(std::uint32_t index, const Chunk* chunk, StepId last_reader) noexcept {
  Group& group = groups_[index];
  if (chunk != nullptr) group.spare.push_back(*chunk);
  group.last_reader = std::max(group.last_reader, last_reader);
  if (--group.members > 0) return;
  for (const Chunk spare : group.spare) leaving_.push_back({group.last_reader, spare});
  group.spare.clear();
  free_groups_.push_back(index);
  complete(StepId{completed_});
}

void Reservations::complete(StepId step) noexcept {
  completed_ = std::max(completed_, raw(step));
  std::erase_if(leaving_, [&](const Leaving& leaving) {
    if (raw(leaving.last_reader) > completed_) return false;
    buddy_.free(leaving.chunk);
    --num_chunks_;
    return true;
  });
}

Chunk Reservations::take(std::uint32_t group, std::size_t index) noexcept {
  std::vector<Chunk>& spare = groups_[group].spare;
  const Chunk chunk = spare[index];
  spare[index] = spare.back();
  spare.pop_back();
  return chunk;
}

void Reservations::check() const {
  buddy_.check();
  std::size_t spare = leaving_.size();
  for (const Group& group : groups_) spare += group.spare.size();
  if (spare > num_chunks_) throw Corrupt(str(spare, " chunks are spare, but only ", num_chunks_, " are reserved"));
}

}  // namespace pagedcore::kv
