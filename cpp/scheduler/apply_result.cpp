// Takes in what a step has brought.
#include <algorithm>

#include "base/grow_capacity.hpp"
#include "scheduler/apply.hpp"

namespace pagedcore::sched {

namespace {

/// Room for a token more.
void reserve_token(std::vector<TokenId>& tokens) {
  const std::size_t size = tokens.size();
  if (tokens.capacity() < size + 1) tokens.reserve(size + std::max<std::size_t>(size / 2, 16));
}

void start_forks(SchedulerState& state, const Intake& intake) {
  for (const Fork& fork : intake.forks()) {
    if (fork.match.num_tokens > 0) {
      state.cache.start(fork.child, fork.request->salt, fork.match, {});
    } else {
      state.cache.start_fork(fork.parent, fork.child, fork.length);
    }
    if (fork.is_beam) continue;  // advance_beams() takes it in
    Request& request = state.own(*fork.request);
    Sample& sample = request.samples[fork.sample];
    sample.sequence = fork.child;
    sample.computed = fork.length;
    sample.block_end = 0;
    sample.computed_before = std::max(sample.computed_before, sample.computed);
    sample.started = true;
    --request.unstarted;
  }
  state.next.sequence += intake.forks().size();
  state.stats.forks += intake.forks().size();
}

/// A request that cannot go on.
void fail(SchedulerState& state, Request& request, std::vector<SampleUpdate>& updates) {
  for (std::uint32_t k = 0; k < request.samples.size(); ++k) {
    if (request.samples[k].is_finished()) continue;
    updates.push_back({.request = request.id, .sample = k, .finish = FinishReason::error});
    if (request.is_beam_search()) break;
  }
  state.remove(request);
}

void take_draw(SchedulerState& state, Request& request, std::uint32_t index, const Draw& draw,
               std::vector<SampleUpdate>& updates) {
  Sample& sample = request.samples[index];
  sample.tokens.push_back(draw.token);  // there is room for it
  const std::size_t generated = sample.tokens.size();
  const bool is_last = generated == request.limits.max_tokens;
  const FinishReason finish = draw.stop ? FinishReason::stop  //
                              : is_last ? FinishReason::length
                                        : FinishReason::none;
  updates.push_back({request.id, index, draw.token, finish});
  if (finish == FinishReason::none) return;
  if (state.config.admission == AdmissionPolicy::adaptive) {
    state.output_lengths.add(static_cast<std::uint32_t>(generated), finish == FinishReason::length);
  }
  state.finish_sample(request, index, finish);
}

/// The work's rows are computed, its samples drawn.
void take_in(SchedulerState& state, const Work& work, const Intake& intake, std::vector<SampleUpdate>& updates) {
  Request& request = state.own(*work.request);
  Sample& sequence = request.samples[work.sample];
  sequence.computed = work.end();
  if (work.num_samples > 0) sequence.most_shared = kAllShared;
  if (sequence.computed_before > work.first) {
    state.stats.tokens_recomputed += std::min(sequence.computed_before, work.end()) - work.first;
  }
  bool& progressed = request.progress.since_preempted;
  progressed = progressed || work.num_samples > 0 || work.end() > sequence.computed_before;
  sequence.computed_before = std::max(sequence.computed_before, work.end());
  if (work.end() >= sequence.block_end) {
    const std::uint32_t block_size = state.rules.block_size;
    sequence.block_end = work.end() - work.end() % block_size + block_size;
    if (state.rules.shares_prefixes) state.publish(request, sequence, false);
  }

  const bool has_prompt = work.end() >= request.limits.prompt_size;
  if (has_prompt) request.progress.scores = false;
  if (has_prompt && request.limits.max_tokens == 0) {
    if (request.prefix_computed != nullptr) state.pin(request);
    for (std::uint32_t k = 0; k < request.samples.size(); ++k) {
      state.finish_sample(request, k, FinishReason::length);
      updates.push_back({.request = request.id, .sample = k, .finish = FinishReason::length});
    }
  }
  if (request.is_beam_search()) return;  // advance_beams() goes on once all beams are taken in
  for (std::uint32_t k = 0; k < work.num_samples; ++k) {
    take_draw(state, request, work.sample + k, intake.draw(work.first_draw + k), updates);
  }
  request.tenant->served += state.config.output_weight * work.num_samples;
  state.stats.tokens_sampled += work.num_samples;
  request.progress.sampled = request.progress.sampled || work.num_samples > 0;
  if (request.unfinished == 0) state.remove(request);
}

/// Takes the children in.
void advance_beams(SchedulerState& state, BeamStep& step, std::vector<SampleUpdate>& updates) {
  Request& request = state.own(*step.request);
  const bool ends = step.children.empty();
  updates.push_back({.request = request.id, .finish = ends ? FinishReason::stop : FinishReason::none});
  state.stats.tokens_sampled += step.children.size();
  request.tenant->served += state.config.output_weight * static_cast<double>(step.children.size());
  request.progress.sampled = true;
  if (ends) {
    state.remove(request);
    return;
  }
  // A parent's place is taken over by its first child or, if it has none, by the fork of another beam: then, and when
  // nobody takes it, its own blocks go.
  for (std::uint32_t place = 0; place < request.samples.size(); ++place) {
    if (request.samples[place].is_finished()) continue;
    const bool survives = std::ranges::any_of(step.children, [&](const BeamChild& c) { return c.parent == place; });
    if (!survives) state.finish_sample(request, place, FinishReason::stop);
  }
  for (std::size_t i = 0; i < step.children.size(); ++i) {
    if (step.places[i] == step.children[i].parent) continue;
    Sample& beam = request.samples[step.places[i]];
    beam.tokens.swap(step.tokens[i]);
    beam.sequence = step.sequences[i];
    beam.computed = request.size(beam);
    beam.computed_before = beam.computed;
    beam.block_end = 0;
    beam.started = true;
    beam.finish = FinishReason::none;
    ++request.unfinished;
  }
  for (std::size_t i = 0; i < step.children.size(); ++i) {
    request.samples[step.places[i]].tokens.push_back(step.children[i].token);
  }
}

/// Blocks of a request were lost on their way to the swap space or back: it is recomputed.
void recompute(SchedulerState& state, RequestId id) {
  Request* request = state.find(id);
  if (request == nullptr) return;  // aborted meanwhile
  if (request->swapped) {
    state.discard_swapped(*request);
  } else if (request->running) {
    state.preempt(*request, false);
    --state.stats.preemptions_recompute;  // it was preempted before
    ++state.stats.swap_fallbacks;
  }
}

}  // namespace

void gather_memory(SchedulerState& state, const Intake& intake, std::vector<SampleUpdate>& updates) {
  const std::vector<Work>& in_flight = state.flight.work;
  std::size_t count = intake.beam_steps().size();
  std::uint32_t longest = 0;  // what tokens() may be asked for
  for (std::size_t i = 0; i < in_flight.size(); ++i) {
    const Work& work = in_flight[i];
    if (work.request == nullptr) continue;
    if (work.is_plain && !intake.has_failed(i)) {
      ++count;
      longest = std::max(longest, work.end() + 1);
      continue;
    }
    Request& request = state.own(*work.request);
    if (work.is_beam) {
      ++count;
      continue;
    }
    count += intake.has_failed(i) || request.limits.max_tokens == 0 ? request.samples.size() : work.num_samples;
    for (std::uint32_t k = work.sample; k < work.sample + work.num_samples; ++k) {
      reserve_token(request.samples[k].tokens);
      longest = std::max(longest, request.size(request.samples[k]) + 1);
    }
  }
  for (const BeamStep& step : intake.beam_steps()) {
    Request& request = state.own(*step.request);
    for (std::size_t i = 0; i < step.children.size(); ++i) {
      if (step.places[i] != step.children[i].parent) continue;
      Sample& beam = request.samples[step.places[i]];
      reserve_token(beam.tokens);
      longest = std::max(longest, request.size(beam) + 1);
    }
  }
  updates.reserve(count);
  grow_capacity(state.joined, longest);
  std::size_t prepared = 0;
  try {
    for (const Fork& fork : intake.forks()) {
      if (fork.match.num_tokens > 0) {
        state.cache.prepare(fork.child, fork.length, fork.request->salt, fork.match, {});
      } else {
        state.cache.prepare_fork(fork.parent, fork.child, fork.length);
      }
      ++prepared;
    }
  } catch (...) {
    while (prepared > 0) state.cache.free(intake.forks()[--prepared].child, StepId{0});
    throw;
  }
}

namespace {

void change(SchedulerState& state, Intake& intake, const StepResult& result, std::vector<SampleUpdate>& updates) {
  std::vector<Work>& in_flight = state.flight.work;
  start_forks(state, intake);
  state.cache.complete(state.flight.step);
  ++state.stats.steps;
  for (std::size_t i = 0; i < in_flight.size(); ++i) {
    look_ahead(in_flight, i);
    state.stats.tokens_computed += in_flight[i].rows;
    if (in_flight[i].request == nullptr) continue;
    if (intake.has_failed(i)) {
      fail(state, state.own(*in_flight[i].request), updates);
    } else {
      take_in(state, in_flight[i], intake, updates);
    }
  }
  for (BeamStep& step : intake.beam_steps()) advance_beams(state, step, updates);
  if (state.rules.has_windows) {
    for (const Work& work : in_flight) {
      if (work.request == nullptr || !state.cache.contains(work.sequence)) continue;
      state.cache.slide(work.sequence, state.cache.length(work.sequence), state.flight.step);
    }
  }
  in_flight.clear();
  state.flight.step = StepId{0};
  for (const RequestId id : result.swap_failed) recompute(state, id);
  state.flight.moving.clear();
  if (!state.preempts_after_commit) return;
  state.preempts_after_commit = false;
  for (Request *request = state.running.front(), *next = nullptr; request != nullptr; request = next) {
    next = request->place.next;
    if (request->forced != Forced::recompute_after_commit) continue;
    state.preempted.push_back(request->id);  // force_preempt() made room
    state.preempt(*request);
  }
}

}  // namespace

void apply(SchedulerState& state, Intake& intake, const StepResult& result,
           std::vector<SampleUpdate>& updates) noexcept {
  state.carry_out([&] { change(state, intake, result, updates); });
}

}  // namespace pagedcore::sched
