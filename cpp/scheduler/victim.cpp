// Who has to go when blocks are short (section 4.5), and how: to the swap space, or to be recomputed.
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
  Price found;
  found.swaps = config.preemption == PreemptionMode::swap ||
                (config.preemption == PreemptionMode::automatic && (!known || swap < recompute));
  found.swaps = found.swaps && cache_config.num_swap_blocks > 0;
  found.per_block = (!known ? tokens : found.swaps ? swap : recompute) / blocks;
  return found;
}

/// Makes room, in the draft, for an earlier `request`: evicts a later running request or, when there is none, takes
/// what later ones hold that wait in the swap space. When there is none of those either, evicts `request` itself and
/// returns false.
/// Requests are visited in order of arrival, so a victim other than `request` has no work in the draft yet.
bool Scheduler::Impl::make_room(Request& request) {
  Request* best = nullptr;
  double lowest = 0.0;
  for (Request* victim = running.back(); victim != &request; victim = victim->prev) {
    if (victim->evicted) continue;
    // Nobody is to be preempted twice without progress while there is another.
    if (best != nullptr && best->progressed && !victim->progressed) continue;
    const double cost = price(*victim).per_block;
    if (best != nullptr && best->progressed == victim->progressed && cost >= lowest) continue;
    best = victim;
    lowest = cost;
  }
  if (best == nullptr && give_up_later(request)) return true;
  evict(best != nullptr ? *best : request);
  return best != nullptr;
}

/// Evicts a running request in the draft.
void Scheduler::Impl::evict(Request& request) {
  ++draft.victims;
  if (request.swap_next || price(request).swaps) {
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

/// Gives up, in the draft, the latest request behind `request` that waits in the swap space: blocks that it shares stay
/// in memory. False when there is none.
bool Scheduler::Impl::give_up_later(const Request& request) {
  for (Request* other = waiting.back(); other != nullptr && request.is_before(*other); other = other->prev) {
    if (!other->swapped || other->evicted) continue;
    draft.departures.push_back({sched::Departure::Kind::give_up, other});
    other->evicted = true;
    for (const Sample& sample : other->samples) {
      if (sample.started) draft.scratch->free(sample.sequence, other->last_step);
    }
    return true;
  }
  return false;
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

/// Back to the waiting queue, to its place by arrival. With `keep` its blocks stay in the prefix cache until they are
/// needed.
void Scheduler::Impl::preempt(Request& request, bool keep) noexcept {
  for (const Sample& sample : request.samples) {
    if (!keep || !sample.started || sample.computed == 0) continue;
    const std::vector<TokenId>& tokens = sample.tokens.empty() ? request.samples[0].tokens : sample.tokens;
    cache.publish(sample.sequence, tokens, sample.computed, true);
  }
  let_go(request);
  request.running = request.preempt_after_commit = request.swap_next = request.progressed = false;
  running.erase(request);
  waiting.insert_from_front(request);
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
