#include "pagedcore/simulation.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/trace.hpp"
#include "sim/request_batcher.hpp"
#include "sim/simulated_executor.hpp"

namespace pagedcore {
namespace {

void check(const CostModel& cost) {
  double sum = 0.0;
  for (const double term : {cost.step, cost.weights, cost.row, cost.pair, cost.context_token, cost.sample,
                            cost.copy_block, cost.swap_out_block, cost.swap_in_block}) {
    if (!(term >= 0.0 && std::isfinite(term))) {
      throw InvalidArgument(str("a cost of ", term, " s; costs are finite and not negative"));
    }
    sum += term;
  }
  if (cost.step + cost.weights + cost.row == 0.0) {
    throw InvalidArgument(str("costs of ", sum, " s in which a step takes no time; give step, weights or row"));
  }
}

void append_tokens(const std::vector<PromptPart>& prompt, std::vector<TokenId>& tokens) {
  for (const PromptPart& part : prompt) {
    for (std::uint32_t i = 0; i < part.tokens; ++i) tokens.push_back(sim::token_of(part.content, i));
  }
}

}  // namespace

std::vector<TokenId> simulated_tokens(const std::vector<PromptPart>& prompt) {
  std::vector<TokenId> tokens;
  append_tokens(prompt, tokens);
  return tokens;
}

struct PAGEDCORE_HIDDEN Simulation::Impl {
  Impl(const SimulationConfig& config_, std::vector<SimulatedRequest> requests_)
      : config(config_),
        requests(std::move(requests_)),
        scheduler(config.scheduler, config.cache),
        executor(config.cost, config.beam_mixing),
        first_token(requests.size(), -1.0),
        finish(requests.size(), -1.0) {
    check(config.cost);
    if (!(config.beam_mixing >= 0.0 && config.beam_mixing <= 1.0)) {
      throw InvalidArgument(str("beam_mixing is ", config.beam_mixing, "; it is a probability, in [0, 1]"));
    }
    for (std::size_t i = 0; i < requests.size(); ++i) validate(i, requests[i]);
    PreemptionCosts costs;
    costs.token = std::max(config.cost.row, 1e-12);
    costs.block_out = config.cost.swap_out_block;
    costs.block_in = config.cost.swap_in_block;
    scheduler.set_preemption_costs(costs);
  }

  /// From 1 on, as an engine counts them.
  static RequestId id_of(std::size_t index) noexcept { return RequestId{index + 1}; }

  /// Does it come in order, and would it fit alone? Its tokens do not matter for that.
  void validate(std::size_t index, const SimulatedRequest& request) const {
    const double before = index > 0 ? requests[index - 1].arrival : 0.0;
    if (!std::isfinite(request.arrival) || request.arrival < before) {
      throw InvalidArgument(str("request ", index, " arrives at ", request.arrival, " s, after one at ", before,
                                " s; arrivals are finite, not negative and in order"));
    }
    if (request.output == 0)
      throw InvalidArgument(str("request ", index, " generates nothing; it has one token at least"));
    if (request.max_tokens != 0 && request.max_tokens < request.output) {
      throw InvalidArgument(str("request ", index, " generates ", request.output,
                                " tokens, more than its max_tokens = ", request.max_tokens,
                                "; raise that, or leave it at 0 for just as many"));
    }
    std::uint64_t tokens = 0;
    for (const PromptPart& part : request.prompt) tokens += part.tokens;
    constexpr std::uint64_t kMost = 1u << 27;
    if (tokens > kMost) {
      throw InvalidArgument(str("request ", index, " has a prompt of ", tokens, " tokens; at most ", kMost));
    }
    SchedulerRequest spec;
    spec.id = id_of(index);
    spec.prompt.resize(tokens);
    spec.num_samples = request.num_samples;
    spec.beam_width = request.beam_width;
    spec.max_tokens = std::max(request.output, request.max_tokens);
    spec.priority = request.priority;
    scheduler.validate(spec);
  }

  void submit(std::size_t index, std::uint32_t prompt, std::uint32_t output) {
    const SimulatedRequest& request = requests[index];
    SchedulerRequest spec;
    spec.id = id_of(index);
    spec.arrival = request.arrival;
    spec.prompt.reserve(prompt);
    append_tokens(request.prompt, spec.prompt);
    spec.prompt.resize(prompt);  // padding
    spec.num_samples = request.num_samples;
    spec.beam_width = request.beam_width;
    spec.max_tokens = std::max(output, request.max_tokens);
    spec.priority = request.priority;
    spec.tenant = request.tenant;
    if (spec.max_tokens > output && request.beam_width == 0) executor.stop_at(spec.id, prompt + output);
    scheduler.submit(std::move(spec));
    if (request.beam_width > 0) executor.add_search(id_of(index), request.beam_width, output);
  }

  /// Those that have arrived; of a request-level batch only when the one before is done.
  void submit_arrivals() {
    std::size_t arrived = next;
    while (arrived < requests.size() && requests[arrived].arrival <= executor.now) ++arrived;
    if (config.batch_requests == 0) {
      for (; next < arrived; ++next) submit(next, sim::prompt_tokens(requests[next]), requests[next].output);
    } else if (!scheduler.has_work() && arrived > next) {
      const std::span<const SimulatedRequest> waiting(requests.data() + next, arrived - next);
      const sim::Batch batch = sim::next_batch(waiting, config.batch_requests, config.batch_tokens);
      for (std::uint32_t i = 0; i < batch.size; ++i, ++next) submit(next, batch.prompt, batch.output);
    }
  }

  bool step() {
    while (true) {
      if (executor.now >= config.stop) return false;
      submit_arrivals();
      if (scheduler.has_work()) break;
      if (next == requests.size()) return false;
      pass(requests[next].arrival);  // idle until the next one
    }
    scheduler.plan(executor.now, last);
    // A plan that only moved requests between queues is empty (StepPlan::plan_again()); the next one is not.
    for (int tries = 0; last.empty(); ++tries) {
      if (tries == 4) throw Corrupt(str("no step can be planned at ", executor.now, " s although requests wait"));
      scheduler.plan(executor.now, last);
    }
    const StepPlan& plan = last;
    const double before = executor.now;
    const StepResult result = executor.run(plan);
    executor.now += unfilled_copies(plan) * config.cost.copy_block;
    const double after = std::exchange(executor.now, before);
    note(plan, after);
    pass(after);
    ++steps;
    for (const SampleUpdate& update : scheduler.commit(result)) take_in(update);
    return true;
  }

  /// Blocks that forks copy although they hold nothing, with copy_reservations.
  double unfilled_copies(const StepPlan& plan) const {
    if (!config.copy_reservations || config.cache.allocation == AllocationPolicy::paged || plan.copies.empty())
      return 0;
    std::vector<BlockId> copied;
    copied.reserve(plan.copies.size());
    for (const BlockCopy& copy : plan.copies) copied.push_back(copy.dst);
    std::ranges::sort(copied);
    double blocks = 0.0;
    for (const ScheduledSequence& work : plan.sequences) {
      // A fork moves as a whole: its first block tells.
      if (!std::ranges::binary_search(copied, plan.block_tables[work.table_offset])) continue;
      const SimulatedRequest& request = requests[static_cast<std::size_t>(raw(work.request)) - 1];
      const KvCacheManager& cache = scheduler.cache();
      blocks += cache.blocks_for(cache.reservation(sim::prompt_tokens(request), request.output));
    }
    return blocks - static_cast<double>(copied.size());
  }

  /// The integrals of the report, over the part of [now, until] that lies in the window: what is there from the plan
  /// until the step has ended.
  void note(const StepPlan& plan, double until) {
    const double part = std::min(until, config.window_end) - std::max(executor.now, config.window_begin);
    if (part <= 0.0) return;
    busy += part;
    const SchedulerStats stats = scheduler.stats();
    const KvCacheCounts counts = scheduler.cache().counts();
    const double block_size = config.cache.block_size;
    const double slots = static_cast<double>(counts.total) * block_size;
    const double groups = scheduler.cache().num_layer_groups();
    const double tokens = static_cast<double>(stats.tokens_cached), unused = static_cast<double>(stats.slots_unused);
    const double logical = (tokens + unused) / block_size * groups;
    const double sharing = counts.used > 0 ? logical / counts.used : 1.0;
    sums.requests += part * stats.running;
    sums.sequences += part * static_cast<double>(plan.sequences.size());
    sums.token_states += part * tokens * groups / sharing / slots;
    sums.reserved += part * static_cast<double>(stats.slots_reserved) / slots;
    sums.internal += part * static_cast<double>(stats.slots_overreserved) / slots;
    sums.allocated += part * counts.used * block_size / slots;
    sums.sharing += part * sharing;
    for (const ScheduledSequence& work : plan.sequences) sums.tokens += work.num_samples;
  }

  void pass(double until) {
    sums.seconds += std::max(0.0, std::min(until, config.window_end) - std::max(executor.now, config.window_begin));
    executor.now = until;
  }

  void take_in(const SampleUpdate& update) {
    const auto index = static_cast<std::size_t>(raw(update.request)) - 1;
    if (first_token[index] < 0.0) first_token[index] = executor.now;
    if (!scheduler.serves(update.request) && finish[index] < 0.0) {
      finish[index] = executor.now;
      ++finished;
      ended.push_back(index);
    }
  }

  std::size_t add(SimulatedRequest request) {
    const std::size_t index = requests.size();
    validate(index, request);
    first_token.reserve(index + 1);
    finish.reserve(index + 1);
    requests.push_back(std::move(request));
    first_token.push_back(-1.0);
    finish.push_back(-1.0);
    return index;
  }

  void run_until(double seconds) {
    while (executor.now < seconds) {
      const bool is_idle = !scheduler.has_work() && (next == requests.size() || requests[next].arrival >= seconds);
      if (is_idle) {
        pass(seconds);
      } else if (!step()) {
        return;  // config.stop
      }
    }
  }

  SimulationReport report() const {
    SimulationReport report = sums;
    for (double* sum : {&report.requests, &report.sequences, &report.token_states, &report.reserved, &report.internal,
                        &report.allocated, &report.tokens}) {
      *sum = sums.seconds > 0.0 ? *sum / sums.seconds : 0.0;
    }
    report.sharing = busy > 0.0 ? sums.sharing / busy : 1.0;
    report.busy = busy;
    report.steps = steps;
    report.finished = finished;
    report.now = executor.now;
    report.scheduler = scheduler.stats();
    return report;
  }

  SimulationConfig config;
  std::vector<SimulatedRequest> requests;
  Scheduler scheduler;
  sim::SimulatedExecutor executor;
  std::vector<double> first_token, finish;
  std::vector<std::size_t> ended;  // since take_ended()
  std::size_t next = 0;            // to be submitted
  std::uint64_t steps = 0, finished = 0;
  SimulationReport sums;  // integrals over time
  double busy = 0.0;      // time of the window with a step
  StepPlan last;          // kept for its memory, too
};

Simulation::Simulation(const SimulationConfig& config, std::vector<SimulatedRequest> requests)
    : impl_(std::make_unique<Impl>(config, std::move(requests))) {}
Simulation::~Simulation() = default;
Simulation::Simulation(Simulation&&) noexcept = default;
Simulation& Simulation::operator=(Simulation&&) noexcept = default;

bool Simulation::run(std::uint64_t max_steps) {
  for (std::uint64_t i = 0; i < max_steps; ++i) {
    if (!impl_->step()) return false;
  }
  return true;
}

std::size_t Simulation::add(SimulatedRequest request) { return impl_->add(std::move(request)); }
void Simulation::run_until(double seconds) { impl_->run_until(seconds); }
std::vector<std::size_t> Simulation::take_ended() noexcept { return std::exchange(impl_->ended, {}); }
std::vector<CacheEvent> Simulation::take_events() { return impl_->scheduler.take_events(); }
EngineSnapshot Simulation::snapshot(const SnapshotLimits& limits) const {
  EngineSnapshot picture;
  picture.time = impl_->executor.now;
  impl_->scheduler.draw(limits, picture);
  return picture;
}

SimulationReport Simulation::report() const { return impl_->report(); }
const std::vector<double>& Simulation::first_token() const noexcept { return impl_->first_token; }
const std::vector<double>& Simulation::finish() const noexcept { return impl_->finish; }
const Scheduler& Simulation::scheduler() const noexcept { return impl_->scheduler; }
std::string Simulation::last_plan() const { return to_text(impl_->last); }

}  // namespace pagedcore
