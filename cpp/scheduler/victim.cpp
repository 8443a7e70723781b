// Who has to go when blocks are short (section 4.5) or a higher priority waits, and how: to the swap space, or to be
// recomputed.
#include <limits>

#include "scheduler/state.hpp"

namespace pagedcore {

using sched::Request;
using sched::Sample;

/// What preempting a request costs for every block that this frees: of its blocks those that nobody else references.
Scheduler::Impl::Price Scheduler::Impl::price(const Request& request) const noexcept {
  double blocks = 0.0;
  for (const Sample& sample : request.samples) {
    if (!sample.started) continue;
    for (const BlockId block : cache.block_table(sample.sequence)) {
      if (block == kNoBlock) continue;
      // One that several sequences of the group share is freed once. (Should a stranger be among the few, no harm.)
      const std::uint32_t references = cache.references(block);
      if (references <= request.unfinished) blocks += 1.0 / references;
    }
  }
  if (blocks <= 0.0) return {.per_block = std::numeric_limits<double>::max()};
  // Tokens of blocks that others keep alive are found again; of the rest the last block is not full.
  const Sample& leader = request.samples[request.leader()];
  const std::uint32_t unused =
      cache_config.block_size - 1 - (leader.computed + cache_config.block_size - 1) % cache_config.block_size;
  const double tokens = blocks / cache.num_groups() * cache_config.block_size - unused;
  const double recompute = tokens * costs.token;
  const double swap = blocks * (costs.block_out + costs.block_in);
  const bool known = costs.token > 0.0 && costs.block_out + costs.block_in > 0.0;
  Price found{.blocks = blocks};
  found.swaps = config.preemption == PreemptionMode::swap ||
                (config.preemption == PreemptionMode::automatic && (!known || swap < recompute));
  found.swaps = found.swaps && cache_config.num_swap_blocks > 0;
  found.per_block = (!known ? tokens : found.swaps ? swap : recompute) / blocks;
  return found;
}

/// Who of the running requests behind `request` goes first; null when there is nobody left. Behind one that waits are
/// only those of lower priorities.
Request* Scheduler::Impl::find_victim(const Request& request) const noexcept {
  const auto is_behind = [&](const Request& other) {
    return request.running ? request.is_before(other) : request.priority > other.priority;
  };
  Request* best = nullptr;
  double lowest = 0.0;
  for (Request* victim = running.back(); victim != nullptr && is_behind(*victim); victim = victim->prev) {
    if (victim->evicted) continue;
    if (config.victim == VictimPolicy::last_arrival) return victim;
    if (best != nullptr && best->priority < victim->priority) break;
    // Nobody is to be preempted twice without progress while there is another.
    if (best != nullptr && best->progressed && !victim->progressed) continue;
    const double cost = price(*victim).per_block;
    if (best != nullptr && best->progressed == victim->progressed && cost >= lowest) continue;
    best = victim;
    lowest = cost;
  }
  return best;
}

/// Makes room, in the draft, for a running `request`: evicts one that comes behind it or, when there is none, takes
/// what those hold that wait in the swap space behind it. When there is none of those either, evicts `request` itself
/// and returns false. Requests are visited in order, so a victim other than `request` has no work in the draft yet.
bool Scheduler::Impl::make_room(Request& request) {
  Request* victim = find_victim(request);
  if (victim == nullptr && give_up_later(request)) return true;
  evict(victim != nullptr ? *victim : request);
  return victim != nullptr;
}

/// Evicts, in the draft, running requests of lower priorities until so many blocks are available for one that waits;
/// one at least. False when that would not do: then nobody goes. But with nobody of its priority running all go: it
/// fits alone.
bool Scheduler::Impl::make_way(const Request& request, std::uint64_t blocks) {
  double found = draft.scratch->available();
  for (const Request* other = running.back(); other != nullptr && other->priority < request.priority;
       other = other->prev) {
    found += price(*other).blocks;
  }
  if (draft.running_samples > 0 && found < static_cast<double>(blocks)) return false;
  do {
    Request* victim = find_victim(request);
    if (victim == nullptr) return true;
    evict(*victim);
  } while (draft.scratch->available() < blocks);
  return true;
}

/// Evicts a running request in the draft.
void Scheduler::Impl::evict(Request& request) {
  ++draft.victims;
  // A step never swaps both ways. (One that has let in a request of a higher priority may preempt behind it.)
  if (draft.swap_ins.empty() && (request.swap_next || price(request).swaps)) {
    sched::Departure swap{sched::Departure::Kind::swap, &request, {}};
    for (const Sample& sample : request.samples) {
      if (sample.started) swap.sequences.push_back(sample.sequence);
    }
    if (draft.scratch->swap_out(swap.sequences, request.last_step)) {
      draft.departures.push_back(std::move(swap));
      request.evicted = true;
      return;
    }
    ++stats.swap_fallbacks;
  }
  draft.departures.push_back({sched::Departure::Kind::recompute, &request});
  request.evicted = true;
  for (const Sample& sample : request.samples) {
    if (sample.started) draft.scratch->free(sample.sequence, request.last_step);
  }
}

/// Gives up, in the draft, the last of the requests behind `request` that wait in the swap space: blocks that it shares
/// stay in memory. With nothing running, behind one that comes in are all others. False when there is none.
bool Scheduler::Impl::give_up_later(const Request& request) {
  if (num_swapped == 0) return false;
  Request* last = nullptr;
  waiting.each([&](Request& other) {
    if (!other.swapped || other.evicted || &other == &request) return;
    if (request.running && !request.is_before(other)) return;
    if (last == nullptr || last->is_before(other)) last = &other;
  });
  if (last == nullptr) return false;
  draft.departures.push_back({sched::Departure::Kind::give_up, last});
  last->evicted = true;
  for (const Sample& sample : last->samples) {
    if (sample.started) draft.scratch->free(sample.sequence, last->last_step);
  }
  return true;
}

/// Its sequences go; it will be computed from the start, or from what the cache has by then.
void Scheduler::Impl::let_go(Request& request) noexcept {
  for (Sample& sample : request.samples) {
    if (!sample.started) continue;
    cache.free(sample.sequence, request.last_step);
    sample.started = false;
    sample.computed = 0;
  }
  plan_forks(request);
  request.unstarted = request.unfinished;
}

/// Back to its place among those who wait. With `keep` its blocks stay in the prefix cache until they are
/// needed.
void Scheduler::Impl::preempt(Request& request, bool keep) noexcept {
  for (const Sample& sample : request.samples) {
    if (!keep || !sample.started || sample.computed == 0) continue;
    const std::vector<TokenId>& tokens = sample.tokens.empty() ? request.samples[0].tokens : sample.tokens;
    cache.publish(sample.sequence, tokens, sample.computed, true);
  }
  let_go(request);
  stop_running(request);
  ++stats.preemptions_recompute;
}

/// One that waits in the swap space is to be recomputed after all.
void Scheduler::Impl::give_up(Request& request) noexcept {
  let_go(request);
  request.swapped = false;
  --num_swapped;
  ++stats.swap_fallbacks;
}

}  // namespace pagedcore
