// Who has to go when blocks are short (section 4.5): the latest arrival, with all its sequences, to be recomputed.
#include "scheduler/state.hpp"

namespace pagedcore {

using sched::Request;
using sched::Sample;

/// Evicts, in the draft, the latest running request. False if that was `request` itself.
/// Requests are visited in order of arrival, so a victim other than `request` has no work in the draft yet.
bool Scheduler::Impl::make_room(const Request& request) {
  Request* victim = running.back();
  while (victim->evicted) victim = victim->prev;
  draft.victims.push_back(victim);
  victim->evicted = true;
  for (const Sample& sample : victim->samples) {
    if (sample.started) draft.scratch->free(sample.sequence, victim->last_step);
  }
  return victim != &request;
}

/// Back to the waiting queue, to its place by arrival. Blocks that were published stay cached until they are needed.
void Scheduler::Impl::preempt(Request& request) noexcept {
  for (Sample& sample : request.samples) {
    if (!sample.started) continue;
    cache.free(sample.sequence, request.last_step);
    sample.started = false;
    sample.computed = 0;
  }
  plan_forks(request);
  request.unstarted = request.unfinished;
  request.running = false;
  request.preempt_after_commit = false;
  running.erase(request);
  waiting.insert_from_front(request);
  ++stats.preemptions_recompute;
}

}  // namespace pagedcore
