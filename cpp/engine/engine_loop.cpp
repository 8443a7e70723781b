// The engine thread: commands, steps, outputs, and what happens when something fails.
#include "engine/engine_loop.hpp"

#include <algorithm>
#include <exception>
#include <new>
#include <utility>
#include <variant>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
void EngineLoop::run() noexcept {
  try {
    while (true) {
      if (!mailbox_.take(commands_, patience())) return;
      run_commands();
      if (scheduler_.has_work()) step();
      publish();
    }
  } catch (const std::bad_alloc&) {
    fail("out of memory");
  } catch (const std::exception& error) {
    fail(error.what());
  } catch (...) {
    fail("an exception of unknown type");
  }
}

/// Nothing to do: sleep until called. Work that could not be planned: look again, ever more rarely, up to 64 ms.
std::optional<std::chrono::milliseconds> EngineLoop::patience() const noexcept {
  if (!scheduler_.has_work()) return std::nullopt;
  return std::chrono::milliseconds(empty_plans_ == 0 ? 0 : 1 << std::min(empty_plans_, 6u));
}

void EngineLoop::run_commands() {
  for (; !commands_.empty(); commands_.pop_front()) {
    std::visit([this](auto& command) { run_command(command); }, commands_.front());
  }
}

void EngineLoop::run_command(SubmitCommand& command) {
  const RequestId id = command.scheduling.id;
  const std::size_t prompt_tokens = command.scheduling.prompt.size();
  RequestState& state = requests_->add(id, std::move(command.request));
  state.pins = command.pins;
  try {
    if (raw(command.pins) != 0) {
      scheduler_.register_prefix(command.pins, command.scheduling, command.shared);
      if (trace_) trace_->register_prefix(command.pins, command.scheduling, command.shared);
    } else {
      scheduler_.submit(command.scheduling);
      if (trace_) trace_->submit(command.scheduling);
    }
    stats_.prefix_query_tokens += prompt_tokens;
  } catch (const std::exception& error) {  // it has changed nothing: only this request ends
    state.error = error.what();
    end_request(id, FinishReason::error);
  }
}

/// A prefix that will never be there has no name any more.
void EngineLoop::forget_prefix(PrefixId id) {
  const std::lock_guard lock(naming_);
  prefixes_.forget(id);
}

void EngineLoop::run_command(AbortCommand& command) {
  if (scheduler_.abort(command.id) && trace_) trace_->abort(command.id);
  end_request(command.id, FinishReason::abort);
}

void EngineLoop::run_command(ReleasePrefixCommand& command) {
  try {
    scheduler_.release_prefix(command.id);
  } catch (const InvalidArgument&) {
    return;  // it went on its own: its computation was aborted or failed
  }
  if (trace_) trace_->release_prefix(command.id);
  for (const RequestId id : requests_->ids()) {
    if (requests_->find(id)->pins == command.id) end_request(id, FinishReason::abort);
  }
}

void EngineLoop::run_command(ClearPrefixCacheCommand&) {
  scheduler_.clear_prefix_cache();
  if (trace_) trace_->clear_prefix_cache();
}

void EngineLoop::run_command(ForcePreemptionCommand& command) { forced_ = command; }

void EngineLoop::step() {
  const double start = mailbox_.now();
  if (forced_.period > 0 && (steps_ + 1) % forced_.period == 0) preempt_latest();
  scheduler_.plan(start, plan_);
  const StepPlan& plan = plan_;
  if (trace_) trace_->plan(start, plan);
  stats_.plan_seconds += mailbox_.now() - start;
  if (plan.empty()) {  // not a step: there is nothing to commit
    empty_plans_ = plan.plan_again() ? 0 : empty_plans_ + 1;
    return;
  }
  empty_plans_ = 0;
  ++steps_;

  note_scheduled(plan);
  const StepResult result = executor_->run(plan);
  take_in(scheduler_.commit(result));
  if (trace_) trace_->commit(result);
  for (const RequestId id : result.failed) end_request(id, FinishReason::error);
  stats_.step_seconds += mailbox_.now() - start;
  measure(plan, mailbox_.now() - start);
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

void EngineLoop::note_scheduled(const StepPlan& plan) {
  for (const ScheduledSequence& s : plan.sequences) {
    RequestState* request = requests_->find(s.request);
    if (request == nullptr || request->scheduled) continue;
    request->scheduled = true;
    request->cached_tokens = s.first_position;  // the first rows of a request follow its cached prefix
  }
}

/// Of those that gained a token since they were last chosen: otherwise a long prompt would be begun for ever.
void EngineLoop::preempt_latest() {
  std::vector<RequestId> ids = requests_->ids();
  for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
    RequestState& request = *requests_->find(*id);
    if (!request.advanced || !scheduler_.force_preempt(*id, forced_.mode)) continue;
    if (trace_) trace_->force_preempt(*id, forced_.mode);
    request.advanced = false;
    return;
  }
}

void EngineLoop::take_in(const std::vector<SampleUpdate>& updates) {
  for (const SampleUpdate& update : updates) {
    RequestState* request = requests_->find(update.request);
    if (request == nullptr) continue;
    if (request->beams && update.finish != FinishReason::error) {
      request->advanced = true;
      report_beams(*request, update.finish != FinishReason::none);
      if (request->unfinished == 0) requests_->erase(update.request);
      continue;
    }
    if (request->beams) continue;  // step() ends failed requests
    SampleState& sample = request->samples.at(update.sample);
    if (sample.finished) continue;
    if (update.token >= 0) {
      sample.output.push_back(update.token);
      request->advanced = true;
    }
    if (update.finish != FinishReason::none || request->request.stream) report(*request, update.sample, update.finish);
    if (request->unfinished == 0) requests_->erase(update.request);
  }
}

/// Puts the news of one sample among the outputs.
void EngineLoop::report(RequestState& request, std::uint32_t index, FinishReason finish) {
  SampleState& sample = request.samples[index];
  EngineOutput& output = outputs_.emplace_back();
  output.request = request.id;
  output.sample = index;
  output.tokens.assign(sample.output.begin() + static_cast<std::ptrdiff_t>(sample.delivered), sample.output.end());
  for (std::size_t i = sample.delivered; i < std::min(sample.output.size(), sample.logprobs.size()); ++i) {
    output.logprobs.push_back(std::move(sample.logprobs[i]));
  }
  sample.delivered = sample.output.size();
  // Kept until the prompt is complete: the first token, or the end.
  if (index == 0) output.prompt_logprobs = std::exchange(request.prompt_logprobs, {});
  output.cached_tokens = request.cached_tokens;
  output.time = mailbox_.now();
  if (finish == FinishReason::none) return;

  sample.finished = true;
  output.finish = finish;
  if (finish == FinishReason::error) output.error = request.error;
  if (finish == FinishReason::error || finish == FinishReason::abort) output.prompt_logprobs.clear();  // incomplete
  output.last = --request.unfinished == 0;
  if (output.last) count_finish(finish);
}

/// What of the best hypothesis can no longer change, or, at the end, all hypotheses.
void EngineLoop::report_beams(RequestState& request, bool ended) {
  BeamState& beams = *request.beams;
  const auto put = [&](std::uint32_t index, const std::vector<TokenId>& tokens) -> EngineOutput& {
    EngineOutput& output = outputs_.emplace_back();
    output.request = request.id;
    output.sample = index;
    output.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(index == 0 ? beams.delivered : 0), tokens.end());
    output.cached_tokens = request.cached_tokens;
    output.time = mailbox_.now();
    return output;
  };
  if (!ended) {
    if (!request.request.stream) return;
    const std::vector<TokenId> stable = beams.search.stable();
    if (stable.size() == beams.delivered) return;
    put(0, stable);
    beams.delivered = stable.size();
    return;
  }
  const std::vector<sampling::BeamSearch::Hypothesis> hypotheses = beams.search.hypotheses();
  for (std::uint32_t i = 0; i < hypotheses.size(); ++i) {
    EngineOutput& output = put(i, hypotheses[i].tokens);
    output.score = hypotheses[i].score;
    output.finish = hypotheses[i].stopped ? FinishReason::stop : FinishReason::length;
    output.last = i + 1 == hypotheses.size();
    if (output.last) count_finish(output.finish);
  }
  request.unfinished = 0;
}

/// Ends every sample that has not ended. Unknown ids are ignored.
void EngineLoop::end_request(RequestId id, FinishReason finish) {
  RequestState* request = requests_->find(id);
  if (request == nullptr) return;
  if (raw(request->pins) != 0) forget_prefix(request->pins);
  for (std::uint32_t i = 0; i < request->samples.size(); ++i) {
    if (!request->samples[i].finished) report(*request, i, finish);
  }
  requests_->erase(id);
}

void EngineLoop::count_finish(FinishReason finish) noexcept {
  if (finish == FinishReason::abort) {
    ++stats_.requests_aborted;
  } else if (finish == FinishReason::error) {
    ++stats_.requests_failed;
  } else {
    ++stats_.requests_finished;
  }
}

void EngineLoop::publish() {
  stats_.scheduler = scheduler_.stats();
  stats_.blocks = scheduler_.cache().counts();
  events_ = scheduler_.take_events();
  mailbox_.publish(outputs_, events_, stats_);
}

void EngineLoop::fail(const char* reason) noexcept {
  try {
    for (const Command& command : commands_) {
      const auto* submit = std::get_if<SubmitCommand>(&command);
      if (submit != nullptr && requests_->find(submit->scheduling.id) == nullptr) {
        requests_->add(submit->scheduling.id, submit->request);
      }
    }
    for (const RequestId id : requests_->ids()) {
      requests_->find(id)->error = str("the engine has failed: ", reason);
      end_request(id, FinishReason::error);
    }
    mailbox_.poison(reason, std::move(outputs_));
  } catch (...) {
    mailbox_.poison({}, {});  // not even memory for the reason; every later call says that the engine has failed
  }
}

}  // namespace pagedcore
