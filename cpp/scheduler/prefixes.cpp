#include "scheduler/prefixes.hpp"

#include <utility>

namespace pagedcore::sched {

PinnedPrefix* Prefixes::find(PrefixId id) const noexcept {
  PinnedPrefix* const* found = by_id_.find(raw(id));
  return found != nullptr ? *found : nullptr;
}

PinnedPrefix* Prefixes::find(PrefixId id, std::uint64_t salt) const noexcept {
  PinnedPrefix* found = find(id);
  return found != nullptr && (found->shared || found->salt == salt) ? found : nullptr;
}

void Prefixes::reserve(std::uint32_t num_blocks) {
  if (all_.size() == all_.capacity()) all_.reserve(2 * all_.size() + 4);
  by_id_.reserve(by_id_.size() + 1);
  holders_.resize(num_blocks);
}

PinnedPrefix& Prefixes::add(std::unique_ptr<PinnedPrefix> prefix) noexcept {
  prefix->index = all_.size();
  by_id_[raw(prefix->id)] = prefix.get();
  blocks_ += prefix->blocks;
  all_.push_back(std::move(prefix));
  return *all_.back();
}

void Prefixes::release(PinnedPrefix& prefix) noexcept {
  if (!std::exchange(prefix.released, true)) by_id_.erase(raw(prefix.id));
}

void Prefixes::hold(PinnedPrefix& prefix, SequenceId sequence, std::span<const BlockId> table) noexcept {
  prefix.sequence = sequence;
  prefix.computing = nullptr;
  for (const BlockId block : table) {
    if (block != kNoBlock) blocks_held_ += holders_[raw(block)]++ == 0;
  }
}

void Prefixes::erase(PinnedPrefix& prefix, std::span<const BlockId> table) noexcept {
  for (const BlockId block : table) {
    if (block != kNoBlock) blocks_held_ -= --holders_[raw(block)] == 0;
  }
  blocks_ -= prefix.blocks;
  release(prefix);
  const std::size_t index = prefix.index;
  all_.back()->index = index;
  std::swap(all_[index], all_.back());
  all_.pop_back();
}

}  // namespace pagedcore::sched
