// The scheduler: a pure object that reads no clock. plan() decides the next step, commit() takes its results in.
//
// One rule covers prefill, chunked prefill, decode and recomputation: a sequence wants its tokens in
// [computed, number of tokens) computed, and a step computes as much of that as budgets and blocks allow. The row of
// the last known token is sampled. Preempted sequences go back to `computed = 0` and need nothing else.
//
// A preempted request either moves its blocks to the swap space and goes on from there, or is recomputed. A request
// that is recomputed frees nothing at once: its blocks enter the prefix cache (under a key of its own where prefix
// caching is off), from which others take them one by one, the last tokens first. It uses what is left when it comes
// back.
//
// The sequences of a request (its samples, or the beams of a beam search) form a *group* that is admitted, preempted
// and resumed as one (section 4.5). A group that is recomputed shares again what it shared before: what sequences have
// in common is computed once.
//
// Not thread-safe. submit(), plan() and commit() leave everything as it was when they throw.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/fields.hpp"
#include "pagedcore/kv_cache.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore {

/// What happens to the KV of a request that has to make room.
enum class PreemptionMode : std::uint8_t {
  automatic,  // per victim, whichever costs less by PreemptionCosts; swapping while those are unknown
  swap,       // swapped out while there are slots, else recomputed
  recompute,
};
template <>
struct Words<PreemptionMode> {
  static constexpr Word<PreemptionMode> list[] = {
      {PreemptionMode::automatic, "auto"}, {PreemptionMode::swap, "swap"}, {PreemptionMode::recompute, "recompute"}};
};

/// Measured costs in seconds; 0: not known yet.
struct PreemptionCosts {
  double token = 0.0;      // of computing one
  double block_out = 0.0;  // of moving one to the swap space
  double block_in = 0.0;   // and back
};

/// Who is served first. What an order does not decide, arrival does; ties keep the order of submission.
enum class ServiceOrder : std::uint8_t {
  fcfs,      // first come, first served
  priority,  // by SchedulerRequest::priority, then by arrival. One that waits may preempt those of lower priorities
  fair,      // between tenants: the one that was served least is next (virtual token counters, Sheng et al.,
             // "Fairness in Serving Large Language Models", OSDI 2024)
};
template <>
struct Words<ServiceOrder> {
  static constexpr Word<ServiceOrder> list[] = {
      {ServiceOrder::fcfs, "fcfs"}, {ServiceOrder::priority, "priority"}, {ServiceOrder::fair, "fair"}};
};

/// A waiting request is admitted beside running ones when there are blocks for ...
enum class AdmissionPolicy : std::uint8_t {
  known,        // all tokens that it and the running ones know, and the next one of each, above the watermark
  watermark,    // all tokens that they know, above the watermark (PagedAttention, section 4.5, as released)
  never_evict,  // everything that they may come to hold: no request is ever preempted for room
  adaptive,     // what they are expected to hold at any time to come, by the output lengths seen so far
};
template <>
struct Words<AdmissionPolicy> {
  static constexpr Word<AdmissionPolicy> list[] = {{AdmissionPolicy::known, "known"},
                                                   {AdmissionPolicy::watermark, "watermark"},
                                                   {AdmissionPolicy::never_evict, "never_evict"},
                                                   {AdmissionPolicy::adaptive, "adaptive"}};
};

/// Which request makes room when blocks are short. It is one behind the request that needs them.
enum class VictimPolicy : std::uint8_t {
  cheapest,      // the one that costs least for each block that it frees
  last_arrival,  // the last one (PagedAttention, section 4.5)
};
template <>
struct Words<VictimPolicy> {
  static constexpr Word<VictimPolicy> list[] = {{VictimPolicy::cheapest, "cheapest"},
                                                {VictimPolicy::last_arrival, "last_arrival"}};
};

struct SchedulerConfig {
  std::uint32_t max_batched_tokens = 512;
  std::uint32_t max_sequences = 256;
  std::uint32_t max_context = 0;
  double watermark = 0.01;
  PreemptionMode preemption = PreemptionMode::automatic;
  ServiceOrder order = ServiceOrder::fcfs;
  AdmissionPolicy admission = AdmissionPolicy::known;
  VictimPolicy victim = VictimPolicy::cheapest;
  double prompt_weight = 1.0;
  double output_weight = 2.0;

  template <class V>
  static void fields(V&& v) {
    using C = SchedulerConfig;
    v(field("max_batched_tokens", &C::max_batched_tokens,
            "Tokens computed in one step; longer prompts are computed in chunks.", in(1, 1 << 20)));
    v(field("max_sequences", &C::max_sequences, "Sequences of one step.", in(1, 1 << 20)));
    v(field("max_context", &C::max_context, "Tokens of one sequence, prompt and output.", in(1, 0x7fffffff))
          .zero_means("as many as the model and the memory allow"));
    v(field("watermark", &C::watermark,
            "Share of the blocks that an admission must leave free, so that it is not preempted at once.",
            from_below(0, 1)));
    v(field("preemption", &C::preemption,
            "What becomes of a request that must make room for an earlier one: swap moves its KV to the swap space and "
            "back, recompute computes again what others took of it, auto takes whichever is cheaper by measured rates. "
            "The output is the same, bit for bit."));
    v(field(
        "order", &C::order,
        "Who is served first: by arrival (fcfs); the request with the highest priority, which may preempt those with "
        "a lower one (priority); the tenant that was served least (fair). No output changes with it."));
    v(field("admission", &C::admission,
            "When a waiting request is admitted beside running ones: when all tokens known and the next of each fit "
            "(known); all but the next (watermark); when all fit to their max_tokens, so that nobody is preempted for "
            "room (never_evict); when they are expected to fit by the output lengths seen so far (adaptive)."));
    v(field("victim", &C::victim,
            "Who makes room when blocks are short: the request that costs least for every block that it frees "
            "(cheapest), or the last one (last_arrival)."));
    v(field("prompt_weight", &C::prompt_weight, "With order fair: service by one prompt token that is computed.",
            at_least(0)));
    v(field("output_weight", &C::output_weight, "With order fair: service by one token that is generated.",
            at_least(0)));
  }
};

inline constexpr std::int32_t kMostPriority = 1'000'000;

struct SchedulerRequest {
  RequestId id{};
  double arrival = 0.0;         // seconds on the caller's clock; ties keep the order of submission
  std::vector<TokenId> prompt;  // one token at least
  std::uint32_t num_samples = 1;
  std::uint32_t beam_width = 0;   // > 0: a beam search of this width; num_samples is 1
  std::uint32_t max_tokens = 16;  // generated tokens per sample; 0: only compute (score) the prompt
  std::uint64_t salt = 0;         // tenants with different salts never share cached prefixes
  bool prompt_logprobs = false;   // every prompt row is scored, so cached prefixes are not used for it
  PrefixId prefix{};              // a registered prefix with which the prompt begins; 0: none
  std::int32_t priority = 0;      // higher goes first, with ServiceOrder::priority; within +-kMostPriority
  std::uint64_t tenant = 0;       // who is served by it, for ServiceOrder::fair
};

/// Rows that one sequence contributes to a step.
struct ScheduledSequence {
  RequestId request{};
  SequenceId sequence{};
  std::uint32_t first_sample = 0;  // index of the sequence's sample (or beam) within its request
  std::uint32_t num_samples = 0;   // > 0: the last row is sampled for samples [first_sample, first_sample +
                                   // num_samples); > 1 only for the first sampling of a request with several samples.
                                   // Of a beam: 1 when the row's candidates are wanted, for all beams in the same step
  std::uint32_t first_row = 0;     // in StepPlan::tokens
  std::uint32_t num_rows = 0;
  std::uint32_t first_position = 0;  // tokens [first_position, first_position + num_rows) are computed
  std::uint32_t num_scored = 0;  // prompt logprobs: the rows [first_row, first_row + num_scored) predict prompt tokens;
                                 // scored again if the prompt is recomputed, so keep them by position
  std::uint32_t table_offset = 0;  // of the table of group 0 in StepPlan::block_tables; that of group g lies
                                   // g * StepPlan::table_entries behind it
  std::uint32_t table_size = 0;
};

/// A request that a step moves, and how many of the moves are its own.
struct SwappedRequest {
  RequestId request{};
  std::uint32_t num_moves = 0;
};

/// Plain data: all that an executor needs, nothing that points into the scheduler.
struct StepPlan {
  StepId step{};  // 0 for an empty plan, which is not committed. If it preempted, that made room: plan again
  // To be done first, in this order, each as one operation. A step has swap-outs or swap-ins, never both.
  std::vector<BlockSwap> swap_outs;
  std::vector<BlockSwap> swap_ins;
  std::vector<BlockCopy> copies;
  // Then computed.
  std::vector<ScheduledSequence> sequences;
  std::vector<TokenId> tokens;        // [rows]
  std::vector<BlockId> block_tables;  // [groups of layers][table_entries]: tables one behind the other. kNoBlock where
                                      // a window has passed
  std::uint32_t table_entries = 0;    // of all sequences together, in one group
  std::vector<SwappedRequest> swapped_out;  // whose swap_outs those are, in order
  std::vector<SwappedRequest> swapped_in;   // likewise; they compute from the next step on
  std::vector<RequestId> preempted;         // requests preempted while planning, for observers

  bool empty() const noexcept { return raw(step) == 0; }
};

/// One sampled token. `sequence` is the one that was scheduled; `sample` the index within the request.
struct SampledToken {
  SequenceId sequence{};
  std::uint32_t sample = 0;
  TokenId token = 0;
  bool stop = false;  // the token ended the sample (a stop token)
};

/// A beam of the next step: beam `parent` of this one (an index within the request) with one token more.
struct BeamChild {
  std::uint32_t parent = 0;
  TokenId token = 0;
};

/// What a beam search goes on with.
struct BeamResult {
  RequestId request{};
  std::vector<BeamChild> children;  // at most beam_width; none: the search has ended
};

struct StepResult {
  StepId step{};
  std::vector<SampledToken> tokens;      // exactly those that the plan asked for, less those of failed requests
  std::vector<RequestId> failed;         // planned requests that cannot go on (their error is the executor's to report)
  std::vector<BeamResult> beams;         // one for each beam search that the plan sampled, less failed ones
  std::vector<RequestId> swap_failed{};  // of the plan's swapped_out and swapped_in: some block was lost on the way.
                                         // They are recomputed
};

/// Which beam every child becomes, so that forks are minimal: the first child of a parent takes its parent's place and
/// keeps its blocks; every other child takes, in order, the lowest place that is left. [children.size()]
PAGEDCORE_API std::vector<std::uint32_t> place_beams(std::span<const BeamChild> children);

enum class FinishReason : std::uint8_t { none, stop, length, abort, error };

/// What became of one sample in a step. Order: as in the plan.
struct SampleUpdate {
  RequestId request{};
  std::uint32_t sample = 0;
  TokenId token = -1;  // -1: no token (an abort, an error, a request with max_tokens = 0, or a beam search, which has
                       // one update a step, for sample 0)
  FinishReason finish = FinishReason::none;
};

struct SchedulerStats {
  // Counters.
  std::uint64_t steps = 0;
  std::uint64_t tokens_computed = 0;  // rows of all committed steps
  std::uint64_t tokens_sampled = 0;
  std::uint64_t tokens_recomputed = 0;      // rows computed again after a preemption
  std::uint64_t prefix_hit_tokens = 0;      // prompt tokens not computed thanks to the prefix cache
  std::uint64_t pinned_hit_tokens = 0;      // and thanks to registered prefixes
  std::uint64_t prefix_waits = 0;           // requests that waited for a prefix that another one was computing
  std::uint64_t preemptions_recompute = 0;  // of whole requests
  std::uint64_t preemptions_swap = 0;
  std::uint64_t preemption_hit_tokens = 0;  // not recomputed after a preemption, as no other had needed their blocks
  std::uint64_t swap_fallbacks = 0;         // requests recomputed after all: no slots, lost blocks, or needed blocks
  std::uint64_t blocks_swapped_out = 0;
  std::uint64_t blocks_swapped_in = 0;
  std::uint64_t forks = 0;  // of samples and beams from one another
  std::uint64_t block_copies = 0;
  // Gauges.
  std::uint32_t waiting = 0;        // requests, preempted ones included
  std::uint32_t running = 0;        // requests that are being computed
  std::uint32_t swapped = 0;        // of the waiting: swapped out
  std::uint32_t prefixes = 0;       // registered ones, or released and in use
  std::uint32_t blocks_pinned = 0;  // that they hold
  std::uint64_t tokens_cached =
      0;  // tokens whose KV running and swapped-in sequences hold, each counted once a sequence
  std::uint64_t slots_unused = 0;  // token slots of their blocks that hold nothing
  // Unless paged, of running requests (PagedAttention, section 3.1): slots set aside for tokens that will come, and for
  // some that never will (internal fragmentation). What is left of the cache is external fragmentation.
  std::uint64_t slots_reserved = 0;
  std::uint64_t slots_overreserved = 0;
};

class PAGEDCORE_API Scheduler {
 public:
  Scheduler(const SchedulerConfig& config, const KvCacheConfig& cache);
  ~Scheduler();
  Scheduler(Scheduler&&) noexcept;
  Scheduler& operator=(Scheduler&&) noexcept;

  const SchedulerConfig& config() const noexcept;
  /// To look at: nothing but the scheduler changes it.
  const KvCacheManager& cache() const noexcept;
  /// Forgets all cached prefixes, as after a change of weights: what was computed before never comes back.
  void clear_prefix_cache() noexcept;
  /// News of the prefix cache since the last call, as KvCacheManager::take_events() gives them.
  std::vector<CacheEvent> take_events();

  /// Throws InvalidArgument for a request that could not finish even alone (with the arithmetic in the message), an
  /// empty prompt, zero samples, samples or prompt log-probabilities together with beams, beams that do not fit
  /// into one step, an id in use, an unknown prefix, or a prompt that does not begin with its prefix.
  void submit(SchedulerRequest request);
  /// The same checks without submitting, less those that concern registered prefixes. Thread-safe: reads the
  /// configuration only.
  void validate(const SchedulerRequest& request) const;

  /// Computes `prefix.prompt` as a request does (its id, arrival and salt are used) and keeps its blocks in memory
  /// until release_prefix(). Requests that name it share them (section 4.4), with prefix caching or without, and with a
  /// salt of their own. The request ends with FinishReason::length when it is there; until then those who name it wait.
  /// Aborting it releases the prefix. Throws InvalidArgument for an id in use or 0, and when its blocks would leave no
  /// room for itself or for a request that was accepted.
  void register_prefix(PrefixId id, SchedulerRequest prefix);
  /// New requests cannot name it any more; its blocks go when the last one that does has ended. One that is still being
  /// computed is aborted. Throws InvalidArgument when it is unknown.
  void release_prefix(PrefixId id);

  /// Ends a request in any state; its blocks are released behind the steps in flight. False if the id is unknown.
  bool abort(RequestId id);

  /// Running requests come first, in the order of service, then waiting ones (but those of a higher priority before
  /// running ones). When blocks are short a request behind the one in need is preempted, with all its sequences; of
  /// several with the lowest priority VictimPolicy::cheapest spares those that have not progressed since they were last
  /// preempted. From then on the step admits and resumes no request. The first in the order always progresses. A
  /// waiting request whose prefix a running one is computing waits for that, and lets others pass. At most one plan is
  /// outstanding: commit() it before planning again. A plan that only made room is empty though requests wait: plan
  /// again. No decision depends on `now`, the time on the caller's clock.
  StepPlan plan(double now);

  /// Takes in the result of the outstanding plan. Results of requests aborted meanwhile are ignored. Throws
  /// InvalidArgument for a result that does not answer the plan; nothing has changed then.
  std::vector<SampleUpdate> commit(const StepResult& result);

  /// What preemptions cost from now on.
  void set_preemption_costs(const PreemptionCosts& costs) noexcept;

  bool has_work() const noexcept;
  SchedulerStats stats() const noexcept;
  /// Tokens of a sample or beam so far (prompt, then output); empty when unknown.
  std::span<const TokenId> tokens(RequestId id, std::uint32_t sample) const noexcept;
  /// Verifies every invariant, the cache's included; throws Corrupt.
  void check() const;
  /// Testing aid: preempts this running request with the next plan, as if blocks were short. Any mode but recompute
  /// swaps it out, as far as there are slots. A plan that only preempts for lack of slots is empty; plan() again. False
  /// if it is not running.
  bool force_preempt(RequestId id, PreemptionMode mode = PreemptionMode::recompute);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pagedcore
