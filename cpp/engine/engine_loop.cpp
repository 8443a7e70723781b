#include "engine/engine_loop.hpp"

#include <algorithm>
#include <exception>
#include <new>
#include <system_error>
#include <utility>
#include <variant>

#include "base/signals_blocked.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

void check_tokens(const std::vector<TokenId>& prompt, std::int32_t vocab_size) {
  const auto bad = std::find_if(prompt.begin(), prompt.end(), [&](TokenId t) { return t < 0 || t >= vocab_size; });
  if (bad != prompt.end()) {
    throw InvalidArgument(
        str("prompt token ", bad - prompt.begin(), " is ", *bad, ", but the vocabulary is [0, ", vocab_size, ")"));
  }
}

/// How many tokens each sample may have: what was asked for, cut where the context ends.
std::uint32_t output_limit(std::size_t prompt, std::uint32_t max_tokens, std::uint32_t max_context) {
  const bool fits = max_tokens == 0 ? prompt <= max_context : prompt < max_context;
  if (!fits) {
    throw InvalidArgument(str("a prompt of ", prompt, " tokens leaves no room to generate: a context holds at most ",
                              max_context, " tokens, prompt and output together; shorten the prompt to ",
                              max_context - 1, " tokens or fewer, or raise max_context and the KV cache"));
  }
  return static_cast<std::uint32_t>(std::min<std::size_t>(max_tokens, max_context - prompt));
}

}  // namespace

// ---- Any thread.

EngineLoop::EngineLoop(const RequestLimits& limits, Scheduler scheduler, std::unique_ptr<RequestTable> requests,
                       std::unique_ptr<Executor> executor, std::optional<TraceWriter> trace)
    : limits_(limits),
      mailbox_(limits.max_cache_events),
      scheduler_(std::move(scheduler)),
      requests_(std::move(requests)),
      executor_(std::move(executor)),
      trace_(std::move(trace)) {
  publish();
  const SignalsBlocked blocked;
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& error) {
    throw OutOfMemory(str("the engine's thread could not be started: ", error.what(),
                          "; check the limits on threads and memory of this process"));
  }
}

EngineLoop::~EngineLoop() { close(); }

/// What the scheduler is told of a request, which has passed every check.
SchedulerRequest EngineLoop::checked(const EngineRequest& request) const {
  fork_guard_.check();
  SchedulerRequest s;
  if (request.beam) {
    pagedcore::validate(*request.beam, limits_.vocab_size);
    s.beam_width = request.beam->width;
  } else {
    pagedcore::validate(request.sampling, limits_.vocab_size);
    s.num_samples = request.sampling.n;
    s.prompt_logprobs = request.sampling.prompt_logprobs >= 0;
  }
  check_tokens(request.prompt, limits_.vocab_size);
  const std::uint32_t max_tokens = request.beam ? request.beam->max_tokens : request.sampling.max_tokens;
  s.max_tokens = output_limit(request.prompt.size(), max_tokens, limits_.max_context);
  s.salt = request.salt;
  s.prompt = request.prompt;
  scheduler_.validate(s);
  return s;
}

RequestId EngineLoop::submit(EngineRequest request) {
  SubmitCommand command;
  command.scheduling = checked(request);
  std::unique_lock lock(prefixes_mutex_, std::defer_lock);
  if (!request.prefix.empty()) {
    lock.lock();
    const auto named = prefixes_.find(request.prefix);
    if (named == prefixes_.end()) {
      throw InvalidArgument(str("prefix '", request.prefix, "' is unknown: it was not registered, or was released; ",
                                prefixes_.size(), " are registered; register it first or name none"));
    }
    command.scheduling.prefix = named->second.id;
  }
  if (request.beam) request.beam->max_tokens = command.scheduling.max_tokens;  // cut where the context ends
  command.request = std::move(request);
  return mailbox_.submit(std::move(command));
}

void EngineLoop::validate(const EngineRequest& request) const {
  static_cast<void>(checked(request));
  static_cast<void>(mailbox_.busy());  // throws when closed or failed
}

void EngineLoop::abort(RequestId id) {
  fork_guard_.check();
  mailbox_.post(AbortCommand{id});
}

std::vector<EngineOutput> EngineLoop::wait(double timeout) {
  fork_guard_.check();
  return mailbox_.wait(timeout);
}

bool EngineLoop::busy() const {
  fork_guard_.check();
  return mailbox_.busy();
}

EngineStats EngineLoop::stats() const {
  fork_guard_.check();
  return mailbox_.stats();
}

void EngineLoop::clear_prefix_cache() {
  fork_guard_.check();
  mailbox_.post(ClearPrefixCacheCommand{});
}

RequestId EngineLoop::register_prefix(const std::string& name, std::vector<TokenId> tokens, std::uint64_t salt) {
  if (name.empty()) throw InvalidArgument("the name of a prefix is empty; requests name it, so give it one");
  SubmitCommand command;
  command.request.prompt = std::move(tokens);
  command.request.salt = salt;
  command.request.sampling.max_tokens = 0;
  command.scheduling = checked(command.request);
  const std::lock_guard lock(prefixes_mutex_);
  if (prefixes_.contains(name)) {
    throw InvalidArgument(str("prefix '", name, "' is registered; release it first or choose another name"));
  }
  command.pins = PrefixId{last_prefix_ + 1};
  NamedPrefix& named = prefixes_[name];
  try {
    named.computing = mailbox_.submit(std::move(command));
  } catch (...) {
    prefixes_.erase(name);
    throw;
  }
  named.id = PrefixId{++last_prefix_};
  return named.computing;
}

void EngineLoop::release_prefix(const std::string& name) {
  fork_guard_.check();
  const std::lock_guard lock(prefixes_mutex_);
  const auto named = prefixes_.find(name);
  if (named == prefixes_.end()) {
    throw InvalidArgument(str("prefix '", name, "' is unknown: it was not registered, or was released already"));
  }
  mailbox_.post(ReleasePrefixCommand{named->second.id});
  prefixes_.erase(named);
}

std::vector<CacheEvent> EngineLoop::cache_events() {
  fork_guard_.check();
  return mailbox_.take_events();
}

void EngineLoop::force_preemption(std::uint32_t period, PreemptionMode mode) {
  fork_guard_.check();
  mailbox_.post(ForcePreemptionCommand{period, mode});
}

void EngineLoop::close() noexcept {
  if (fork_guard_.in_child()) return;
  mailbox_.close();
  const std::lock_guard lock(closing_);  // whoever closes second waits until it is done
  if (!thread_.joinable()) return;
  thread_.join();
  executor_.reset();
  requests_.reset();
  trace_.reset();
}

// ---- The engine thread.

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
      scheduler_.register_prefix(command.pins, command.scheduling);
      if (trace_) trace_->register_prefix(command.pins, command.scheduling);
    } else {
      scheduler_.submit(command.scheduling);
      if (trace_) trace_->submit(command.scheduling);
    }
    stats_.prefix_query_tokens += prompt_tokens;
  } catch (const std::exception& error) {  // it has changed nothing: only this request ends
    state.error = error.what();
    end_request(id, FinishReason::error);
    if (raw(command.pins) != 0) forget_prefix(command.pins);
  }
}

/// A prefix that will never be there has no name any more.
void EngineLoop::forget_prefix(PrefixId id) {
  const std::lock_guard lock(prefixes_mutex_);
  std::erase_if(prefixes_, [&](const auto& named) { return named.second.id == id; });
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
  scheduler_.cache().clear_prefix_cache();
  if (trace_) trace_->clear_prefix_cache();
}

void EngineLoop::run_command(ForcePreemptionCommand& command) {
  preemption_period_ = command.period;
  preemption_mode_ = command.mode;
}

void EngineLoop::step() {
  const double start = mailbox_.now();
  if (preemption_period_ > 0 && (steps_ + 1) % preemption_period_ == 0) preempt_latest();
  const StepPlan plan = scheduler_.plan(start);
  if (trace_) trace_->plan(start, plan);
  stats_.plan_seconds += mailbox_.now() - start;
  if (plan.empty()) {  // not a step: there is nothing to commit
    ++empty_plans_;
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
  if (!plan.tokens.empty() && plan.swapped_out.empty() && plan.swapped_in.empty()) {
    const double token = seconds / static_cast<double>(plan.tokens.size());
    costs_.token = costs_.token == 0.0 ? token : 0.9 * costs_.token + 0.1 * token;
  }
  stats_.swap = executor_->swap_counters();
  costs_.block_out = stats_.swap.block_out;
  costs_.block_in = stats_.swap.block_in;
  const auto differs = [](double now, double known) { return now > 1.3 * known || now < known / 1.3; };
  if (scheduler_.cache().config().num_swap_blocks == 0) return;
  if (!differs(costs_.token, known_costs_.token) && !differs(costs_.block_out, known_costs_.block_out) &&
      !differs(costs_.block_in, known_costs_.block_in)) {
    return;
  }
  known_costs_ = costs_;
  scheduler_.set_preemption_costs(costs_);
  if (trace_) trace_->set_preemption_costs(costs_);
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
    if (!request.advanced || !scheduler_.force_preempt(*id, preemption_mode_)) continue;
    if (trace_) trace_->force_preempt(*id, preemption_mode_);
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
  events_ = scheduler_.cache().take_events();
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
