// Service on a virtual clock: the scheduler and the block manager that serve real requests, unchanged, under an
// executor that prices every plan instead of computing it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "pagedcore/engine.hpp"
#include "pagedcore/export.hpp"
#include "pagedcore/scheduler.hpp"
#include "pagedcore/snapshot.hpp"

namespace pagedcore {

/// What a step costs, in seconds. The terms are those of a roofline with overheads:
///   step + max(weights, rows * row + pairs * pair) + context * context_token + samples * sample + block operations
/// where `pairs` counts the (row, context token) pairs of attention, and `context` the tokens whose KV is read: of a
/// decoding sequence all it has, of a prompt chunk those before the chunk.
struct CostModel {
  double step = 0.0;
  double weights = 0.0;
  double row = 0.0;
  double pair = 0.0;
  double context_token = 0.0;
  double sample = 0.0;
  double copy_block = 0.0;
  double swap_out_block = 0.0;
  double swap_in_block = 0.0;

  template <class V>
  static void fields(V&& v) {
    using C = CostModel;
    v(field("step", &C::step, "Of any step, whatever it computes."));
    v(field("weights", &C::weights, "Reading all weights once."));
    v(field("row", &C::row, "Arithmetic of one row."));
    v(field("pair", &C::pair, "Of attention, for one row and one token of its context."));
    v(field("context_token", &C::context_token, "Reading the KV of one token."));
    v(field("sample", &C::sample, "Of sampling once."));
    v(field("copy_block", &C::copy_block, ""));
    v(field("swap_out_block", &C::swap_out_block, ""));
    v(field("swap_in_block", &C::swap_in_block, ""));
  }
};

/// What a plan asks of an executor, in the terms of CostModel.
struct StepWork {
  double rows = 0.0;
  double pairs = 0.0;
  double context = 0.0;
  double samples = 0.0;
  double copies = 0.0;
  double swap_outs = 0.0;
  double swap_ins = 0.0;

  template <class V>
  static void fields(V&& v) {
    using W = StepWork;
    v(field("rows", &W::rows, ""));
    v(field("pairs", &W::pairs, "(row, context token) pairs of attention."));
    v(field("context", &W::context, "Tokens whose KV is read."));
    v(field("samples", &W::samples, ""));
    v(field("copies", &W::copies, "Blocks."));
    v(field("swap_outs", &W::swap_outs, "Blocks."));
    v(field("swap_ins", &W::swap_ins, "Blocks."));
  }
};

/// Throw nothing; thread-safe.
PAGEDCORE_API StepWork step_work(const StepPlan& plan) noexcept;
PAGEDCORE_API double step_seconds(const CostModel& cost, const StepPlan& plan) noexcept;

struct TimedStep {
  StepWork work;
  double seconds = 0.0;

  template <class V>
  static void fields(V&& v) {
    using T = TimedStep;
    v(field("work", &T::work, ""));
    v(field("seconds", &T::seconds, "Until the next step was planned."));
  }
};

/// The steps of a real engine's trace (trace.hpp) and how long each took: from its plan to the next one, with all that
/// the engine does between steps. Left out are steps after which nothing was left to do: when they ended is not known.
/// Throws as replay_trace() does, and Corrupt for a trace that this scheduler plans otherwise.
PAGEDCORE_API std::vector<TimedStep> timed_steps(const std::string& trace);

/// So many tokens of some content. Equal contents are equal tokens, which the prefix cache finds.
struct PromptPart {
  std::uint64_t content = 0;
  std::uint32_t tokens = 0;
};

struct SimulatedRequest {
  double arrival = 0.0;
  std::vector<PromptPart> prompt;
  std::uint32_t output = 1;
  std::uint32_t num_samples = 1;
  std::uint32_t beam_width = 0;
  std::uint32_t max_tokens = 0;
  std::int32_t priority = 0;
  std::uint64_t tenant = 0;

  template <class V>
  static void fields(V&& v) {
    using R = SimulatedRequest;
    v(field("arrival", &R::arrival, "Virtual seconds."));
    v(field("prompt", &R::prompt, "One token at least in all."));
    v(field("output", &R::output, "Tokens generated, by every sample."));
    v(field("num_samples", &R::num_samples, ""));
    v(field("beam_width", &R::beam_width, "Above 0: a beam search; num_samples is 1."));
    v(field("max_tokens", &R::max_tokens, "That it asks for, more than it generates; 0: just its output."));
    v(field("priority", &R::priority, "As in SchedulerRequest."));
    v(field("tenant", &R::tenant, "As in SchedulerRequest."));
  }
};

struct SimulationConfig {
  SchedulerConfig scheduler;
  KvCacheConfig cache;
  CostModel cost;
  std::uint32_t batch_requests = 0;
  std::uint32_t batch_tokens = 2040;
  double beam_mixing = 0.0;
  bool copy_reservations = false;
  double window_begin = 0.0;
  double window_end = 1e300;
  double stop = 1e300;

  template <class V>
  static void fields(V&& v) {
    using C = SimulationConfig;
    v(field("scheduler", &C::scheduler, ""));
    v(field("cache", &C::cache, ""));
    v(field("cost", &C::cost, ""));
    v(field("batch_requests", &C::batch_requests,
            "Request-level batching, the FasterTransformer baseline (PagedAttention, section 6.1): up to so many of "
            "the earliest requests, as long as their longest prompt and longest output make at most batch_tokens, are "
            "padded to those and served until all are done. 0: iteration-level."));
    v(field("batch_tokens", &C::batch_tokens, "Longest prompt and longest output of such a batch together."));
    v(field("beam_mixing", &C::beam_mixing,
            "In every step a beam goes on from its own past, or with this probability from that of a random beam: a "
            "one-parameter model of the ancestry of beams, to be fitted."));
    v(field("copy_reservations", &C::copy_reservations,
            "Contiguous allocation: a fork is priced as a copy of all that was set aside for its parent, filled or "
            "not, as in the baselines of PagedAttention, section 6.1. Else of what is filled."));
    v(field("window_begin", &C::window_begin, "Averages of the report are over this part of the virtual time."));
    v(field("window_end", &C::window_end, ""));
    v(field("stop", &C::stop, "End here, whatever is still to be served."));
  }
};

/// Averages over time. Shares are of all token slots of the cache.
struct SimulationReport {
  std::uint64_t steps = 0;
  std::uint64_t finished = 0;
  double now = 0.0;
  double seconds = 0.0;
  double busy = 0.0;
  double requests = 0.0;
  double sequences = 0.0;
  double token_states = 0.0;
  double reserved = 0.0;
  double internal = 0.0;
  double allocated = 0.0;
  double sharing = 0.0;
  double tokens = 0.0;
  SchedulerStats scheduler;

  template <class V>
  static void fields(V&& v) {
    using R = SimulationReport;
    v(field("steps", &R::steps, ""));
    v(field("finished", &R::finished, "Requests."));
    v(field("now", &R::now, "Virtual seconds."));
    v(field("seconds", &R::seconds, "Of the window, that have passed."));
    v(field("busy", &R::busy, "Of these: with a step."));
    v(field("requests", &R::requests, "Running."));
    v(field("sequences", &R::sequences, "Computed in a step."));
    v(field("token_states", &R::token_states, "Share of slots with a token, each counted once."));
    v(field("reserved", &R::reserved, "Of slots that wait for tokens to come."));
    v(field("internal", &R::internal, "Of slots that were set aside for nothing."));
    v(field("allocated", &R::allocated, "Of slots in blocks that sequences hold."));
    v(field("sharing", &R::sharing,
            "Blocks that sequences hold, by blocks that there are, while a step runs; 1: none."));
    v(field("tokens", &R::tokens, "Generated, a second."));
    v(field("scheduler", &R::scheduler, ""));
  }
};

/// The tokens that a prompt of these parts is made of.
PAGEDCORE_API std::vector<TokenId> simulated_tokens(const std::vector<PromptPart>& prompt);

class PAGEDCORE_API Simulation {
 public:
  /// Throws InvalidArgument for a request that can never be served (it names which), for arrivals that are negative,
  /// not finite or not in order, and for costs that are negative or all zero.
  Simulation(const SimulationConfig& config, std::vector<SimulatedRequest> requests);
  ~Simulation();
  Simulation(Simulation&&) noexcept;
  Simulation& operator=(Simulation&&) noexcept;

  /// Makes up to so many steps; false when there is nothing more to do. Throws InvalidArgument when a request that was
  /// padded to its request-level batch does not fit any more; end there.
  bool run(std::uint64_t max_steps);

  // One of several that somebody deals requests to, as they come:

  /// A request behind those that are there; returns its index. Throws as the constructor, and for one that arrives
  /// before another that is there. Where the clock is past its arrival, it came while a step ran.
  std::size_t add(SimulatedRequest request);
  /// Makes the steps that begin before this time; idle, the clock goes on to it. Throws as run().
  void run_until(double seconds);
  /// Indices of the requests that have ended since the last call.
  std::vector<std::size_t> take_ended() noexcept;
  /// News of the prefix cache, as Scheduler::take_events() gives them.
  std::vector<CacheEvent> take_events();
  /// What an engine's snapshot shows, but for the steps.
  EngineSnapshot snapshot(const SnapshotLimits& limits) const;

  SimulationReport report() const;
  /// Virtual seconds, [requests]; negative: it has not come to that. A request has ended with the last of its samples.
  const std::vector<double>& first_token() const noexcept;
  const std::vector<double>& finish() const noexcept;
  const Scheduler& scheduler() const noexcept;
  /// The latest plan, as to_text() gives it, for comparing with a real engine's trace.
  std::string last_plan() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pagedcore
