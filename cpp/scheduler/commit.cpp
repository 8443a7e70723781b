// Scheduler::commit(): check the result, gather all memory and fork, then take everything in. Only the first two can
// fail, and neither changes anything.
#include <algorithm>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "scheduler/state.hpp"

namespace pagedcore {

using sched::Request;
using sched::Sample;
using sched::Work;

std::vector<SampleUpdate> Scheduler::Impl::commit(const StepResult& result) {
  if (raw(outstanding) == 0 || result.step != outstanding) {
    throw InvalidArgument(str("the result of step ", raw(result.step), " is committed, but ",
                              raw(outstanding) == 0 ? str("no step is outstanding; plan() one first")
                                                    : str("step ", raw(outstanding), " is outstanding")));
  }
  for (const RequestId id : result.swap_failed) {
    if (std::ranges::find(moving, id) != moving.end()) continue;
    throw InvalidArgument(str("step ", raw(outstanding), ": the swap of request ", raw(id), " is said to have failed, ",
                              "but the plan does not move it"));
  }
  collect(result);
  check_beams(result);
  std::vector<SampleUpdate> updates;
  forks.clear();
  beam_steps.clear();
  try {
    prepare_samples(updates);
    for (std::size_t i = 0; i < in_flight.size(); ++i) {
      if (in_flight[i].request != nullptr && !failed[i]) prepare_forks(in_flight[i]);
    }
    for (const BeamResult& beam : result.beams) prepare_beams(beam);
    updates.reserve(updates.capacity() + beam_steps.size());
  } catch (...) {
    for (const Fork& fork : forks) cache.free(fork.sequence, StepId{0});  // the parent still holds every block
    throw;
  }

  cache.complete(outstanding);
  ++stats.steps;
  for (const Fork& fork : forks) {
    if (fork.is_beam) continue;  // advance_beams() takes it in
    Sample& sample = fork.request->samples[fork.sample];
    sample.sequence = fork.sequence;
    sample.computed = fork.length;
    sample.computed_before = std::max(sample.computed_before, sample.computed);
    sample.started = true;
    --fork.request->unstarted;
  }
  next_sequence += forks.size();
  stats.forks += forks.size();
  for (std::size_t i = 0; i < in_flight.size(); ++i) {
    stats.tokens_computed += in_flight[i].rows;
    Request* request = in_flight[i].request;
    if (request == nullptr) continue;
    if (failed[i]) {
      for (std::uint32_t k = 0; k < request->samples.size(); ++k) {
        if (request->samples[k].is_finished()) continue;
        updates.push_back({.request = request->id, .sample = k, .finish = FinishReason::error});
        if (request->is_beam_search()) break;
      }
      remove(*request);
    } else {
      take_in(in_flight[i], updates);
    }
  }
  for (BeamStep& step : beam_steps) advance_beams(step, updates);
  for (const Work& work : in_flight) {
    if (has_windows && work.request != nullptr && cache.contains(work.sequence)) {
      cache.slide(work.sequence, cache.length(work.sequence), outstanding);
    }
  }
  in_flight.clear();
  outstanding = StepId{0};
  for (const RequestId id : result.swap_failed) recover(id);
  moving.clear();
  for (Request *request = running.front(), *next = nullptr; request != nullptr; request = next) {
    next = request->next;
    if (!request->preempt_after_commit) continue;
    forced.push_back(request->id);  // force_preempt() made room
    preempt(*request);
  }
  return updates;
}

/// Blocks of a request were lost on their way to the swap space or back: it is recomputed.
void Scheduler::Impl::recover(RequestId id) noexcept {
  Request* request = find(id);
  if (request == nullptr) return;  // aborted meanwhile
  if (request->swapped) {
    give_up(*request);
  } else if (request->running) {
    preempt(*request, false);
    --stats.preemptions_recompute;  // it was preempted before
    ++stats.swap_fallbacks;
  }
}

/// Sorts the result's tokens and failures to the work they belong to.
void Scheduler::Impl::collect(const StepResult& result) {
  const std::size_t count = in_flight.empty() ? 0 : in_flight.back().first_draw + in_flight.back().num_samples;
  draws.assign(count, {});
  drawn.assign(count, 0);
  failed.assign(in_flight.size(), 0);
  for (const RequestId id : result.failed) {
    for (std::size_t i = 0; i < in_flight.size(); ++i) {
      if (in_flight[i].request != nullptr && in_flight[i].request->id == id) failed[i] = 1;
    }
  }
  const auto bad = [&](const SampledToken& token, const char* why) {
    return InvalidArgument(str("step ", raw(outstanding), ", sequence ", raw(token.sequence), ", sample ", token.sample,
                               ", token ", token.token, ": ", why));
  };
  std::size_t at = 0;  // results mostly come in the order of the plan
  for (const SampledToken& token : result.tokens) {
    for (std::size_t tried = 0; in_flight[at].sequence != token.sequence; ++tried) {
      if (tried == in_flight.size()) throw bad(token, "the sequence is not in the plan");
      at = at + 1 < in_flight.size() ? at + 1 : 0;
    }
    const Work& work = in_flight[at];
    if (work.request == nullptr || failed[at]) continue;
    if (work.request->is_beam_search()) throw bad(token, "a beam is continued by StepResult::beams");
    const std::uint32_t offset = token.sample - work.sample;
    if (token.sample < work.sample || offset >= work.num_samples) throw bad(token, "the plan does not sample this one");
    if (token.token < 0) throw bad(token, "a token is never negative");
    const std::size_t slot = work.first_draw + offset;
    if (drawn[slot]) throw bad(token, "the sample comes twice");
    drawn[slot] = 1;
    draws[slot] = {token.token, token.stop};
  }
  for (std::size_t i = 0; i < in_flight.size(); ++i) {
    const Work& work = in_flight[i];
    if (work.request == nullptr || failed[i] || work.request->is_beam_search()) continue;
    for (std::uint32_t k = 0; k < work.num_samples; ++k) {
      if (!drawn[work.first_draw + k]) throw bad({work.sequence, work.sample + k, -1}, "the token is missing");
    }
  }
}

/// Room for every token and update to come.
void Scheduler::Impl::prepare_samples(std::vector<SampleUpdate>& updates) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < in_flight.size(); ++i) {
    const Work& work = in_flight[i];
    if (work.request == nullptr) continue;
    Request& request = *work.request;
    if (request.is_beam_search()) {
      ++count;
      continue;
    }
    count += failed[i] || request.max_tokens == 0 ? request.samples.size() : work.num_samples;
    for (std::uint32_t k = work.sample; k < work.sample + work.num_samples; ++k) {
      std::vector<TokenId>& tokens = request.samples[k].tokens;
      const std::size_t size = std::max<std::size_t>(tokens.size(), request.prompt_size);
      if (tokens.capacity() < size + 1) tokens.reserve(size + std::max<std::size_t>(size / 2, 16));
      if (tokens.empty()) {
        const auto prompt = request.samples[0].tokens.begin();
        tokens.assign(prompt, prompt + request.prompt_size);
      }
    }
  }
  updates.reserve(count);
}

/// A sample starts from another one as soon as that has computed what they have in common, and shares its blocks: after
/// the first sampling that is the prompt, and after a preemption plan_forks() has found out what it is.
void Scheduler::Impl::prepare_forks(const Work& work) {
  Request& request = *work.request;
  if (request.unstarted == 0 || request.max_tokens <= 1) return;
  for (std::uint32_t k = 0; k < request.samples.size(); ++k) {
    const Sample& sample = request.samples[k];
    if (sample.started || sample.is_finished() || sample.fork_parent != work.sample) continue;
    if (work.end() < sample.fork_length) continue;
    if (!request.sampled && draws[work.first_draw + k].stop) continue;  // ends with its first token
    const PrefixMatch match = left_over(request, k, work.sequence);
    if (match.num_tokens > sample.fork_length) {
      fork(request, k, work.sequence, match.num_tokens, false, &match);
    } else {
      fork(request, k, work.sequence, sample.fork_length, false);
    }
  }
}

/// What the cache still has of a sample that was preempted, if it shares with the parent all that they have in common:
/// the group must not grow.
PrefixMatch Scheduler::Impl::left_over(const Request& request, std::uint32_t index, SequenceId parent) const {
  const Sample& sample = request.samples[index];
  if (sample.computed_before <= sample.fork_length || has_windows || sample.tokens.empty()) return {};
  PrefixMatch match = cache.match_prefix(sample.tokens, request.salt, request.target(sample) - 1, true);
  const auto shared = static_cast<std::ptrdiff_t>(sample.fork_length / cache_config.block_size * cache.num_groups());
  const auto table = cache.block_table(parent);
  if (std::ssize(match.blocks) < shared || !std::equal(table.begin(), table.begin() + shared, match.blocks.begin())) {
    return {};
  }
  return match;
}

void Scheduler::Impl::fork(Request& request, std::uint32_t sample, SequenceId parent, std::uint32_t length,
                           bool is_beam, const PrefixMatch* match) {
  const SequenceId child{next_sequence + forks.size()};
  forks.push_back({&request, sample, child, length, is_beam});
  try {
    if (match != nullptr) {
      cache.create(child, request.salt, *match);
    } else {
      cache.fork(parent, child, length);
    }
  } catch (...) {
    forks.pop_back();
    throw;
  }
}

void Scheduler::Impl::finish_sample(Request& request, std::uint32_t index, FinishReason reason) noexcept {
  Sample& sample = request.samples[index];
  sample.finish = reason;
  --request.unfinished;
  if (sample.started) {
    // The end of a beam is of no use to others.
    if (caching && !request.is_beam_search()) {
      const std::vector<TokenId>& tokens = sample.tokens.empty() ? request.samples[0].tokens : sample.tokens;
      cache.publish(sample.sequence, tokens, sample.computed, true);
    }
    cache.free(sample.sequence, request.last_step);
    sample.started = false;
  } else {
    --request.unstarted;
  }
}

/// The work's rows are computed, its samples drawn.
void Scheduler::Impl::take_in(const Work& work, std::vector<SampleUpdate>& updates) {
  Request& request = *work.request;
  Sample& sequence = request.samples[work.sample];
  sequence.computed = work.end();
  if (sequence.computed_before > work.first) {
    stats.tokens_recomputed += std::min(sequence.computed_before, work.end()) - work.first;
  }
  request.progressed = request.progressed || work.num_samples > 0 || work.end() > sequence.computed_before;
  sequence.computed_before = std::max(sequence.computed_before, work.end());
  if (caching) cache.publish(work.sequence, sequence.tokens, sequence.computed);
  if (work.end() >= request.prompt_size) request.scores = false;

  if (request.pins != nullptr && work.end() == request.prompt_size) {
    // From now on the prefix owns the sequence.
    if (caching) cache.publish(work.sequence, sequence.tokens, sequence.computed, true);
    request.pins->sequence = work.sequence;
    request.pins->computing = nullptr;
    sequence.started = false;
    ++request.unstarted;
  }
  if (request.max_tokens == 0 && work.end() == request.prompt_size) {
    for (std::uint32_t k = 0; k < request.samples.size(); ++k) {
      finish_sample(request, k, FinishReason::length);
      updates.push_back({.request = request.id, .sample = k, .finish = FinishReason::length});
    }
  }
  if (request.is_beam_search()) return;  // advance_beams() goes on once all beams are taken in
  for (std::uint32_t k = 0; k < work.num_samples; ++k) {
    const Draw& draw = draws[work.first_draw + k];
    Sample& sample = request.samples[work.sample + k];
    sample.tokens.push_back(draw.token);
    const bool is_last = sample.tokens.size() == std::size_t{request.prompt_size} + request.max_tokens;
    const FinishReason finish = draw.stop ? FinishReason::stop  //
                                : is_last ? FinishReason::length
                                          : FinishReason::none;
    updates.push_back({request.id, work.sample + k, draw.token, finish});
    if (finish == FinishReason::none) continue;
    if (config.admission == AdmissionPolicy::adaptive) {
      const std::size_t generated = sample.tokens.size() - request.prompt_size;
      output_lengths.add(static_cast<std::uint32_t>(generated), finish == FinishReason::length);
    }
    finish_sample(request, work.sample + k, finish);
  }
  request.tenant->served += config.output_weight * work.num_samples;
  stats.tokens_sampled += work.num_samples;
  request.sampled = request.sampled || work.num_samples > 0;
  if (request.unfinished == 0) remove(request);
}

}  // namespace pagedcore
