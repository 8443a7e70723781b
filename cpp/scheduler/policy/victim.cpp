// Who has to go when blocks are short (section 4.5) or a higher priority waits, and how: to the swap space, or to be
// recomputed.
#include <limits>

#include "scheduler/draft.hpp"

namespace pagedcore::sched {

/// Of its blocks those are freed that nobody else references.
PreemptionPrice price_of(const SchedulerState& state, const Request& request) {
  const SchedulerConfig& config = state.config;
  const PreemptionCosts& costs = state.costs;
  double blocks = 0.0;
  for (const Sample& sample : request.samples) {
    if (!sample.started) continue;
    for (const BlockId block : state.cache.block_table(sample.sequence)) {
      if (block == kNoBlock) continue;
      // One that several sequences of the group share is freed once. (Should a stranger be among the few, no harm.)
      const std::uint32_t references = state.cache.references(block);
      if (references <= request.unfinished) blocks += 1.0 / references;
    }
  }
  if (blocks <= 0.0) return {.per_block = std::numeric_limits<double>::max()};
  // Tokens of blocks that others keep alive are found again; of the rest the last block is not full.
  const Sample& leader = request.samples[request.leader()];
  const std::uint32_t block_size = state.rules.block_size;
  const std::uint32_t unused = block_size - 1 - (leader.computed + block_size - 1) % block_size;
  const double tokens = blocks / state.rules.num_layer_groups * block_size - unused;
  const double recompute = tokens * costs.token;
  const double swap = blocks * (costs.block_out + costs.block_in);
  const bool known = costs.token > 0.0 && costs.block_out + costs.block_in > 0.0;
  PreemptionPrice price{.blocks = blocks};
  price.swaps = config.preemption == PreemptionMode::swap ||
                (config.preemption == PreemptionMode::automatic && (!known || swap < recompute));
  price.swaps = price.swaps && state.cache_config.num_swap_blocks > 0;
  price.per_block = (!known ? tokens : price.swaps ? swap : recompute) / blocks;
  return price;
}

/// Who of the running requests behind `request` goes first; null when there is nobody left. Behind one that waits are
/// only those of lower priorities.
const Request* Draft::find_victim(const Request& request) const {
  const auto is_behind = [&](const Request& other) {
    return request.running ? request.is_before(other) : request.key.priority > other.key.priority;
  };
  const Request* best = nullptr;
  double lowest = 0.0;
  for (const Request* victim = state_.running.back(); victim != nullptr && is_behind(*victim);
       victim = victim->place.prev) {
    if (has_departed(*victim)) continue;
    if (state_.config.victim == VictimPolicy::last_arrival) return victim;
    if (best != nullptr && best->key.priority < victim->key.priority) break;
    // Nobody is to be preempted twice without progress while there is another.
    const bool progressed = victim->progress.since_preempted;
    if (best != nullptr && best->progress.since_preempted && !progressed) continue;
    const double cost = price_of(state_, *victim).per_block;
    if (best != nullptr && best->progress.since_preempted == progressed && cost >= lowest) continue;
    best = victim;
    lowest = cost;
  }
  return best;
}

/// For a running `request` that needs room: preempts one that comes behind it or, when there is none, discards what
/// those hold that wait in the swap space behind it. When there is none of those either, preempts `request` itself and
/// returns false. Requests are visited in order, so a victim other than `request` has no work in the draft yet.
bool Draft::preempt_behind(const Request& request) {
  const Request* victim = find_victim(request);
  if (victim == nullptr && discard_behind(request)) return true;
  preempt(victim != nullptr ? *victim : request);
  return victim != nullptr;
}

/// Preempts running requests of lower priorities until so many blocks are available for one that waits; one at least.
/// False when that would not do: then nobody goes. But with nobody of its priority running all go: it fits alone.
bool Draft::preempt_for_waiting(const Request& request, std::uint64_t blocks) {
  double found = scratch_->available();
  for (const Request* other = state_.running.back(); other != nullptr && other->key.priority < request.key.priority;
       other = other->place.prev) {
    found += price_of(state_, *other).blocks;
  }
  if (running_samples_ > 0 && found < static_cast<double>(blocks)) return false;
  do {
    const Request* victim = find_victim(request);
    if (victim == nullptr) return true;
    preempt(*victim);
  } while (scratch_->available() < blocks);
  return true;
}

/// A running request: to the swap space, where that is cheaper or was asked for and there are slots.
void Draft::preempt(const Request& request) {
  ++decisions_.preemptions;
  departed_[request.key.order] = true;
  // A step never swaps both ways. (One that has admitted a request of a higher priority may preempt behind it.)
  const bool swaps =
      decisions_.swap_ins.empty() && (request.forced == Forced::swap_in_next_plan || price_of(state_, request).swaps);
  if (swaps) {
    Departure swap{Departure::Kind::swap, &request, {}};
    for (const Sample& sample : request.samples) {
      if (sample.started) swap.sequences.push_back(sample.sequence);
    }
    if (scratch_->swap_out(swap.sequences, request.last_step)) {
      decisions_.departures.push_back(std::move(swap));
      return;
    }
    ++decisions_.swap_fallbacks;
  }
  decisions_.departures.push_back({Departure::Kind::recompute, &request});
  for (const Sample& sample : request.samples) {
    if (sample.started) scratch_->free(sample.sequence, request.last_step);
  }
}

/// Discards the blocks of the last of the requests behind `request` that wait in the swap space: those that it shares
/// stayed in memory. With nothing running, behind one that is admitted are all others. False when there is none.
bool Draft::discard_behind(const Request& request) {
  const Request* last = state_.swapped.back();
  while (last != nullptr && (last == &request || has_departed(*last))) last = last->swapped_place.prev;
  if (last == nullptr || (request.running && !request.is_before(*last))) return false;
  decisions_.departures.push_back({Departure::Kind::discard, last});
  departed_[last->key.order] = true;
  for (const Sample& sample : last->samples) {
    if (sample.started) scratch_->free(sample.sequence, last->last_step);
  }
  return true;
}

}  // namespace pagedcore::sched
