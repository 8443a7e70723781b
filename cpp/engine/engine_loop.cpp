// The engine thread: commands, steps, outputs, and what happens when something fails.
#include "engine/engine_loop.hpp"

#include <algorithm>
#include <exception>
#include <new>
#include <utility>
#include <variant>

#include "base/exception_memory.hpp"
#include "base/text.hpp"
#include "engine/jump_ahead.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

constexpr double kHour = 3600.0;  // seconds: the longest sleep before a deadline is looked at again

}  // namespace

void EngineLoop::run() noexcept {
  take_exception_memory();
  try {
    while (true) {
      const MailboxState state = mailbox_.take(taken_.commands, patience());
      if (!state.open) return write_last();
      pace_.paused = state.paused;
      run_commands();
      if (state.orphans) end_orphans();
      end_overdue();
      tend_store();
      if (scheduler_.has_work() && !pace_.paused) step();
      publish();
    }
  } catch (const std::bad_alloc&) {
    fail(kNoMemory);
  } catch (const std::exception& error) {
    fail(error.what());
  } catch (...) {
    fail("an exception of unknown type");
  }
}

/// Nothing to do: sleep until called. Work that could not be planned: look again, ever more rarely, up to 64 ms. A
/// deadline is looked at when it is over.
std::optional<std::chrono::duration<double>> EngineLoop::patience() const noexcept {
  std::optional<double> seconds;
  if (has_store_work()) return std::chrono::duration<double>(0.0);
  if (scheduler_.has_work() && !pace_.paused)
    seconds = pace_.empty_plans == 0 ? 0.0 : 1e-3 * (1 << std::min(pace_.empty_plans, 6u));
  if (const std::optional<double> first = requests_->first_deadline(); first && seconds != 0.0)
    seconds = std::clamp(*first - mailbox_.now(), 0.0, seconds.value_or(kHour));
  return seconds ? std::optional(std::chrono::duration<double>(*seconds)) : std::nullopt;
}

void EngineLoop::end_overdue() {
  if (!requests_->first_deadline()) return;
  const double now = mailbox_.now();
  while (RequestState* request = requests_->overdue(now)) stop(*request, FinishReason::deadline);
}

/// Those whose outputs nobody will take.
void EngineLoop::end_orphans() {
  while (RequestState* request = requests_->orphan()) stop(*request, FinishReason::abort);
}

void EngineLoop::run_commands() {
  for (; taken_.next < taken_.commands.size(); ++taken_.next) {
    std::visit([this](auto& command) { run_command(command); }, taken_.commands[taken_.next]);
  }
  taken_.commands.clear();
  taken_.next = 0;
}

void EngineLoop::run_command(SubmitCommand& command) {
  RequestState& state = *command.request;
  const std::size_t prompt_tokens = state.request.prompt.size();
  try {
    requests_->add(command.request);
    // A trace is told of what was accepted, which the scheduler takes over.
    SchedulerRequest traced;
    if (trace_) traced = command.scheduling;
    if (raw(state.pins) != 0) {
      scheduler_.register_prefix(state.pins, std::move(command.scheduling), command.shared);
      if (trace_) trace_->register_prefix(state.pins, traced, command.shared);
    } else {
      scheduler_.submit(std::move(command.scheduling));
      if (trace_) trace_->submit(traced);
    }
    stats_.prefix_query_tokens += prompt_tokens;
  } catch (const std::bad_alloc&) {  // nothing has changed: only this request ends
    state.error = kNoMemory;
    end(state, FinishReason::error);
  } catch (const std::exception& error) {
    state.error = error.what();
    end(state, FinishReason::error);
  }
}

/// A prefix that will never be there has no name any more.
void EngineLoop::forget_prefix(PrefixId id) {
  const std::lock_guard lock(naming_);
  prefixes_.forget(id);
}

void EngineLoop::run_command(AbortCommand& command) {
  if (RequestState* request = requests_->find(command.id)) stop(*request, FinishReason::abort);
}

void EngineLoop::run_command(ReleasePrefixCommand& command) {
  try {
    scheduler_.release_prefix(command.id);
  } catch (const InvalidArgument&) {
    return;  // it went on its own: its computation was aborted or failed
  }
  if (trace_) trace_->release_prefix(command.id);
  if (RequestState* computing = requests_->find_pinning(command.id)) end(*computing, FinishReason::abort);
}

void EngineLoop::run_command(ClearPrefixCacheCommand&) {
  scheduler_.clear_prefix_cache();
  if (trace_) trace_->clear_prefix_cache();
}

void EngineLoop::run_command(ForcePreemptionCommand& command) { pace_.forced = command; }

/// Where there is no memory for it the caller is told, and nothing else has happened.
void EngineLoop::run_command(SnapshotCommand& command) {
  try {
    EngineSnapshot picture;
    picture.time = mailbox_.now();
    scheduler_.draw(command.limits, picture);
    history_.copy_to(picture.steps);
    command.picture.set_value(std::move(picture));
  } catch (const std::bad_alloc&) {
    command.picture.set_exception(std::current_exception());
  }
}

/// Does what may lack memory for the step as a whole. Where it does it is done again; as often as it still does, the
/// largest request ends, which frees its own: one request ends rather than all. When none is left the memory is in
/// other hands, which get a second to give some back.
template <class Act>
void EngineLoop::with_memory(const Act& act) {
  int failures = 0, waits = 0;
  const auto end_largest = [&] {
    if (++failures == 1) return;
    RequestState* largest = requests_->largest();
    if (largest == nullptr) {
      if (++waits > 1000) throw;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return;
    }
    largest->error = kNoMemory;
    stop(*largest, FinishReason::error);
  };
  while (true) {
    try {
      return act();
    } catch (const std::bad_alloc&) {
      end_largest();
    } catch (const OutOfMemory&) {
      end_largest();
    }
  }
}

void EngineLoop::step() {
  const double start = mailbox_.now();
  if (pace_.forced.period > 0 && (pace_.steps + 1) % pace_.forced.period == 0) with_memory([&] { preempt_latest(); });
  with_memory([&] { scheduler_.plan(start, plan_); });
  const StepPlan& plan = plan_;
  if (trace_) trace_->plan(start, plan);
  const double planned = mailbox_.now();
  stats_.plan_seconds += planned - start;
  for (const RequestId id : plan.store_reads) want_stored(id);
  if (plan.empty()) {  // not a step: there is nothing to commit
    pace_.empty_plans = plan.plan_again() ? 0 : pace_.empty_plans + 1;
    return;
  }
  pace_.empty_plans = 0;
  ++pace_.steps;

  note_scheduled(plan, start);
  StepResult result;
  with_memory([&] { result = executor_->run(plan); });
  std::vector<SampleUpdate> updates;
  with_memory([&] { updates = scheduler_.commit(result); });
  if (trace_) trace_->commit(result);
  const double done = mailbox_.now();
  for (const SampleUpdate& update : updates) {
    bool has_token = false;
    with_memory([&] { take_in(update, has_token, done); });
  }
  for (const RequestId id : result.failed) end_request(id, FinishReason::error);
  const double seconds = mailbox_.now() - start;
  stats_.step_seconds += seconds;
  history_.add(plan, {.start = start, .seconds = seconds, .plan_seconds = planned - start});
  measure(plan, seconds);
}

/// What preemptions cost. The scheduler is told of changes that matter, so that a trace of it stays short.
void EngineLoop::measure(const StepPlan& plan, double seconds) {
  auto& [measured, known] = costs_;
  if (!plan.tokens.empty() && plan.swapped_out.empty() && plan.swapped_in.empty()) {
    const double token = seconds / static_cast<double>(plan.tokens.size());
    measured.token = measured.token == 0.0 ? token : 0.9 * measured.token + 0.1 * token;
  }
  stats_.swap = executor_->swap_counters();
  measured.block_out = stats_.swap.block_out;
  measured.block_in = stats_.swap.block_in;
  const auto differs = [](double now, double then) { return now > 1.3 * then || now < then / 1.3; };
  if (scheduler_.cache().config().num_swap_blocks == 0) return;
  if (!differs(measured.token, known.token) && !differs(measured.block_out, known.block_out) &&
      !differs(measured.block_in, known.block_in)) {
    return;
  }
  known = measured;
  scheduler_.set_preemption_costs(measured);
  if (trace_) trace_->set_preemption_costs(measured);
}

void EngineLoop::note_scheduled(const StepPlan& plan, double now) {
  for (const ScheduledSequence& s : plan.sequences) {
    RequestState* request = requests_->find(s.request);
    if (request == nullptr || request->scheduled) continue;
    request->scheduled = true;
    request->times.scheduled = now;
    ++pace_.begun;
    request->cached_tokens = s.first_position;  // the first rows of a request follow its cached prefix
  }
}

/// Of those that gained a token since they were last chosen: otherwise a long prompt would be begun for ever.
void EngineLoop::preempt_latest() {
  const std::vector<RequestId> ids = requests_->ids();
  for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
    RequestState& request = *requests_->find(*id);
    if (!request.advanced || !scheduler_.force_preempt(*id, pace_.forced.mode)) continue;
    if (trace_) trace_->force_preempt(*id, pace_.forced.mode);
    request.advanced = false;
    return;
  }
}

/// `has_token`: its token was taken in before, by a call that lacked the memory to tell of it.
void EngineLoop::take_in(const SampleUpdate& update, bool& has_token, double now) {
  RequestState* request = requests_->find(update.request);
  if (request == nullptr) return;
  RequestTimes& times = request->times;
  if (times.prefilled == 0.0) times.prefilled = now;
  if (request->beams) {
    if (update.finish == FinishReason::error) return;  // step() ends failed requests
    request->advanced = true;
    if (times.first_token == 0.0) times.first_token = now;
    times.last_token = now;
    if (update.finish != FinishReason::none) keep(*request, {});
    report_beams(*request, update.finish != FinishReason::none);
  } else {
    SampleState& sample = request->samples.at(update.sample);
    if (sample.finished) return;
    if (update.token >= 0 && !has_token) {
      sample.output.push_back(update.token);
      has_token = request->advanced = true;
      if (sample.first_token == 0.0) sample.first_token = now;
      sample.last_token = now;
      if (sample.output.size() == 1) keep_prompt(*request);
    }
    if (update.finish == FinishReason::none) jump(*request, update.sample, scheduler_, trace_);
    if (update.finish == FinishReason::stop || update.finish == FinishReason::length) keep(*request, sample.output);
    if (update.finish != FinishReason::none || request->request.stream) report(*request, update.sample, update.finish);
  }
  if (request->unfinished == 0) requests_->erase(update.request);
}

/// Puts the news of one sample among the outputs. Throws std::bad_alloc; then nothing has changed.
void EngineLoop::report(RequestState& request, std::uint32_t index, FinishReason finish) {
  if (finish != FinishReason::none) {
    finish_sample(request, index, finish, mailbox_.now(), outputs_);
    if (request.unfinished == 0) count_finish(finish);
    return;
  }
  SampleState& sample = request.samples[index];
  const std::size_t fresh = news_of(request, sample);
  News news(1);
  EngineOutput& output = news.front();
  output.request = request.id;
  output.sample = index;
  const auto first = sample.output.begin() + static_cast<std::ptrdiff_t>(sample.delivered);
  output.tokens.assign(first, first + static_cast<std::ptrdiff_t>(fresh));
  output.logprobs = std::exchange(sample.logprobs, {});
  sample.delivered += fresh;
  // Kept until the prompt is complete: the first token, or the end.
  if (index == 0) output.prompt_logprobs = std::exchange(request.prompt_logprobs, {});
  output.cached_tokens = request.cached_tokens;
  output.time = mailbox_.now();
  output.times = times_of(request, index);
  outputs_.splice(outputs_.end(), news);
}

/// What of the best hypothesis can no longer change, or, at the end, all hypotheses. Throws as report().
void EngineLoop::report_beams(RequestState& request, bool ended) {
  BeamState& beams = *request.beams;
  News news;
  const auto put = [&](std::uint32_t index, const std::vector<TokenId>& tokens) -> EngineOutput& {
    EngineOutput& output = news.emplace_back();
    output.request = request.id;
    output.sample = index;
    output.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(index == 0 ? beams.delivered : 0), tokens.end());
    output.cached_tokens = request.cached_tokens;
    output.time = mailbox_.now();
    output.times = request.times;
    return output;
  };
  if (!ended) {
    if (!request.request.stream) return;
    const std::vector<TokenId> stable = beams.search.stable();
    if (stable.size() == beams.delivered) return;
    put(0, stable);
    beams.delivered = stable.size();
    outputs_.splice(outputs_.end(), news);
    return;
  }
  const std::vector<sampling::BeamSearch::Hypothesis> hypotheses = beams.search.hypotheses();
  for (std::uint32_t i = 0; i < hypotheses.size(); ++i) {
    EngineOutput& output = put(i, hypotheses[i].tokens);
    output.score = hypotheses[i].score;
    output.finish = hypotheses[i].stopped ? FinishReason::stop : FinishReason::length;
    output.last = i + 1 == hypotheses.size();
  }
  count_finish(news.back().finish);
  outputs_.splice(outputs_.end(), news);
  request.unfinished = 0;
}

/// Unknown ids are ignored.
void EngineLoop::end_request(RequestId id, FinishReason finish) noexcept {
  if (RequestState* request = requests_->find(id)) end(*request, finish);
}

/// Ends a request that the scheduler still has, perhaps.
void EngineLoop::stop(RequestState& request, FinishReason finish) {
  if (scheduler_.abort(request.id) && trace_) trace_->abort(request.id);
  end(request, finish);
}

/// Ends every sample that has not ended, and forgets the request. Needs no memory.
void EngineLoop::end(RequestState& request, FinishReason finish) noexcept {
  if (!request.scheduled) ++pace_.begun;
  if (raw(request.pins) != 0) forget_prefix(request.pins);
  for (std::uint32_t i = 0; i < request.samples.size(); ++i) {
    if (!request.samples[i].finished) report(request, i, finish);
  }
  requests_->erase(request.id);
}

void EngineLoop::count_finish(FinishReason finish) noexcept {
  if (finish == FinishReason::abort) {
    ++stats_.requests_aborted;
  } else if (finish == FinishReason::deadline) {
    ++stats_.requests_expired;
  } else if (finish == FinishReason::error) {
    ++stats_.requests_failed;
  } else {
    ++stats_.requests_finished;
  }
}

void EngineLoop::publish() {
  stats_.scheduler = scheduler_.stats();
  stats_.blocks = scheduler_.cache().counts();
  if (beyond_.traffic) stats_.store = beyond_.traffic->counters();
  try {
    events_ = scheduler_.take_events();
  } catch (const std::bad_alloc&) {  // they stay for the next time
  }
  mailbox_.publish(outputs_, events_, stats_, std::exchange(pace_.begun, 0));
}

void EngineLoop::fail(const char* reason) noexcept {
  const auto give_up = [&](RequestState& request) {
    try {
      request.error = str("the engine has failed: ", reason);
    } catch (const std::bad_alloc&) {
      request.error = kNoMemory;
    }
    end(request, FinishReason::error);
  };
  for (; taken_.next < taken_.commands.size(); ++taken_.next) {
    auto* submit = std::get_if<SubmitCommand>(&taken_.commands[taken_.next]);
    if (submit != nullptr && submit->request != nullptr) give_up(*submit->request);
  }
  while (RequestState* request = requests_->any()) give_up(*request);
  mailbox_.poison(reason, std::move(outputs_));
  taken_.commands.clear();  // who waits for an answer is told
}

}  // namespace pagedcore
