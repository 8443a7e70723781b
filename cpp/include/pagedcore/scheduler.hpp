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
// Not thread-safe. submit(), plan() and commit() leave everything here as it was when they throw, but for one case: a
// change that could not fail has met books that are wrong. Then the scheduler is broken, and each call that may throw
// throws Corrupt with the reason, from that one on; stats() still has the counters.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/fields.hpp"
#include "pagedcore/kv_cache.hpp"
#include "pagedcore/snapshot.hpp"
#include "pagedcore/step_plan.hpp"
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
  double token = 0.0;
  double block_out = 0.0;
  double block_in = 0.0;

  template <class V>
  static void fields(V&& v) {
    using C = PreemptionCosts;
    v(field("token", &C::token, "Of computing one."));
    v(field("block_out", &C::block_out, "Of moving one to the swap space."));
    v(field("block_in", &C::block_in, "And back."));
  }
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
  std::uint32_t max_batched_tokens = 0;
  std::uint32_t max_sequences = 256;
  std::uint32_t max_context = 0;
  double watermark = 0.01;
  PreemptionMode preemption = PreemptionMode::automatic;
  ServiceOrder order = ServiceOrder::fcfs;
  AdmissionPolicy admission = AdmissionPolicy::known;
  VictimPolicy victim = VictimPolicy::cheapest;
  double prompt_weight = 1.0;
  double output_weight = 2.0;
  bool jump_ahead = true;

  template <class V>
  static void fields(V&& v) {
    using C = SchedulerConfig;
    v(field("max_batched_tokens", &C::max_batched_tokens,
            "Tokens computed in one step; longer prompts are computed in chunks.", in(1, 1 << 20))
          .zero_means("512, on a GPU 2048"));
    v(field("max_sequences", &C::max_sequences, "Sequences of one step.", in(1, 1 << 20)));
    v(field("max_context", &C::max_context, "Tokens of one sequence, prompt and output.", in(1, kMostCount))
          .zero_means("as many as the model and the memory allow"));
    v(field("watermark", &C::watermark,
            "Share of the blocks that an admission must leave free, so that it is not preempted at once.", in(0, 1)));
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
    v(field(
        "jump_ahead", &C::jump_ahead,
        "Where a structured output's form leaves one token to come, and then one again, the run of them is computed "
        "in one step instead of one step each. No output changes with it."));
  }
};

/// Throws InvalidArgument for a value outside its range.
PAGEDCORE_API void validate(const SchedulerConfig& config);

/// SchedulerConfig::max_batched_tokens where that is 0; an engine on a GPU has another.
inline constexpr std::uint32_t kDefaultBatchedTokens = 512;
inline constexpr std::int32_t kMostPriority = 1'000'000;

struct SchedulerRequest {
  RequestId id{};
  double arrival = 0.0;
  std::vector<TokenId> prompt;
  std::uint32_t num_samples = 1;
  std::uint32_t beam_width = 0;
  std::uint32_t max_tokens = 16;
  bool is_open_ended = false;
  std::uint64_t salt = 0;
  bool prompt_logprobs = false;
  std::uint32_t first_scored = 0;
  PrefixId prefix{};
  std::int32_t priority = 0;
  std::uint64_t tenant = 0;
  bool is_whole = false;
  std::uint32_t stored_tokens = 0;

  template <class V>
  static void fields(V&& v) {
    using R = SchedulerRequest;
    v(field("id", &R::id, ""));
    v(field("arrival", &R::arrival, "Seconds on the caller's clock; ties keep the order of submission."));
    v(field("prompt", &R::prompt, "One token at least."));
    v(field("num_samples", &R::num_samples, "", in(1, kMostSamples)));
    v(field("beam_width", &R::beam_width, "Above 0: a beam search of this width; num_samples is 1.",
            in(0, kMostSamples)));
    v(field("max_tokens", &R::max_tokens, "Generated tokens per sample; 0: only compute (score) the prompt."));
    v(field("is_open_ended", &R::is_open_ended,
            "max_tokens is lowered to what the cache holds beside registered prefixes, later ones too."));
    v(field("salt", &R::salt, "Tenants with different salts never share cached prefixes."));
    v(field("prompt_logprobs", &R::prompt_logprobs,
            "Prompt tokens are scored, so cached prefixes are not used for them."));
    v(field("first_scored", &R::first_scored,
            "Of those, the first: what comes before may be cached; 0 and 1 are all but the first of the prompt."));
    v(field("prefix", &R::prefix,
            "A registered prefix of this salt, or a shared one, with which the prompt begins; 0: none."));
    v(field("priority", &R::priority, "Higher goes first, with order priority.", in(-kMostPriority, kMostPriority)));
    v(field("tenant", &R::tenant, "Who is served by it, for order fair."));
    v(field("is_whole", &R::is_whole,
            "Its tokens see those behind them: all are computed in one step, nothing is taken from the prefix cache or "
            "left there, and max_tokens is 0."));
    v(field(
        "stored_tokens", &R::stored_tokens,
        "Leading tokens of the prompt, in full blocks, whose KV could be read from a store: where that is more than "
        "the cache has when its turn comes, a plan asks for it (StepPlan::store_reads) and the request waits until "
        "Scheduler::end_store_read()."));
  }
};

struct SchedulerStats {
  std::uint64_t steps = 0;
  std::uint64_t tokens_computed = 0;
  std::uint64_t tokens_sampled = 0;
  std::uint64_t tokens_jumped = 0;
  std::uint64_t tokens_recomputed = 0;
  std::uint64_t prefix_hit_tokens = 0;
  std::uint64_t pinned_hit_tokens = 0;
  std::uint64_t prefix_waits = 0;
  std::uint64_t preemptions_recompute = 0;
  std::uint64_t preemptions_swap = 0;
  std::uint64_t preemption_hit_tokens = 0;
  std::uint64_t swap_fallbacks = 0;
  std::uint64_t blocks_swapped_out = 0;
  std::uint64_t blocks_swapped_in = 0;
  std::uint64_t forks = 0;
  std::uint64_t block_copies = 0;
  std::uint32_t waiting = 0;
  std::uint32_t running = 0;
  std::uint32_t swapped = 0;
  std::uint32_t prefixes = 0;
  std::uint32_t blocks_pinned = 0;
  std::uint64_t tokens_cached = 0;
  std::uint64_t slots_unused = 0;
  std::uint64_t slots_reserved = 0;
  std::uint64_t slots_overreserved = 0;

  template <class V>
  static void fields(V&& v) {
    using S = SchedulerStats;
    v(field("steps", &S::steps, "Steps that were run."));
    v(field("tokens_computed", &S::tokens_computed, "Rows of all steps."));
    v(field("tokens_sampled", &S::tokens_sampled, "Tokens that outputs gained."));
    v(field("tokens_jumped", &S::tokens_jumped,
            "Of those: a constraint left nothing else, so they were not drawn but computed in one chunk with the token "
            "before them."));
    v(field("tokens_recomputed", &S::tokens_recomputed, "Of the computed: once more, after a preemption."));
    v(field("prefix_hit_tokens", &S::prefix_hit_tokens, "Prompt tokens not computed thanks to the prefix cache."));
    v(field("pinned_hit_tokens", &S::pinned_hit_tokens, "Prompt tokens not computed thanks to registered prefixes."));
    v(field("prefix_waits", &S::prefix_waits, "Requests that waited for a prefix that another one was computing."));
    v(field("preemptions_recompute", &S::preemptions_recompute,
            "Requests that made room for an earlier one, to be computed again."));
    v(field("preemptions_swap", &S::preemptions_swap,
            "Requests that made room for an earlier one by moving to the swap space."));
    v(field("preemption_hit_tokens", &S::preemption_hit_tokens,
            "Tokens of the recomputed requests that need not be computed, since nobody had taken their blocks."));
    v(field(
        "swap_fallbacks", &S::swap_fallbacks,
        "Requests computed again after all: no room in the swap space, a lost block, or a block that others needed."));
    v(field("blocks_swapped_out", &S::blocks_swapped_out, "Blocks moved to the swap space."));
    v(field("blocks_swapped_in", &S::blocks_swapped_in, "And back."));
    v(field("forks", &S::forks, "Sequences that began by sharing another's blocks."));
    v(field("block_copies", &S::block_copies, "Blocks copied because a shared one was written."));
    v(field("waiting", &S::waiting, "Requests submitted and not running: never admitted, or preempted.")
          .gauge("requests_waiting"));
    v(field("running", &S::running, "Requests that are being computed.").gauge("requests_running"));
    v(field("swapped", &S::swapped, "Of the waiting: with their KV in the swap space.").gauge("requests_swapped"));
    v(field("prefixes", &S::prefixes, "Registered prefixes, with those that were released and are still in use.")
          .gauge("prefixes_registered"));
    v(field("blocks_pinned", &S::blocks_pinned, "Blocks that belong to registered prefixes.").gauge("blocks_pinned"));
    v(field("tokens_cached", &S::tokens_cached,
            "Tokens whose KV running and swapped-in sequences hold, counted for each of them.")
          .gauge("kv_tokens"));
    v(field("slots_unused", &S::slots_unused, "Token slots in their last blocks that hold nothing: the waste.")
          .gauge("kv_slots_unused"));
    v(field("slots_reserved", &S::slots_reserved,
            "Contiguous allocation: slots set aside for tokens that are still to come (PagedAttention, section 3.1).")
          .gauge("kv_slots_reserved"));
    v(field("slots_overreserved", &S::slots_overreserved,
            "Contiguous allocation: slots set aside for tokens that never come (internal fragmentation).")
          .gauge("kv_slots_overreserved"));
  }
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
  /// until release_prefix(). Requests that name it share them (section 4.4), with prefix caching or without. It belongs
  /// to its salt: under any other it is unknown, unless it is `shared`. The request ends with FinishReason::length when
  /// it is there; until then those who name it wait. Aborting it releases the prefix. Throws InvalidArgument for an id
  /// in use or 0, and when its blocks would leave no room for itself or for a request that was accepted.
  void register_prefix(PrefixId id, SchedulerRequest prefix, bool shared = false);
  /// New requests cannot name it any more; its blocks go when the last one that does has ended. One that is still being
  /// computed is aborted. Throws InvalidArgument when it is unknown.
  void release_prefix(PrefixId id);

  /// Takes blocks for a prefix whose KV comes from a store or another engine, as KvCacheManager::import_prefix(), which
  /// says what is returned. The caller fills them before anything that is planned later reads the cache.
  std::vector<BlockId> import_prefix(std::span<const TokenId> tokens, std::uint64_t salt,
                                     std::span<const std::uint8_t> offered);
  /// What a plan asked for of a request's prefix is in the cache now, as far as it will be: it waits no more. Unknown
  /// ids are ignored.
  void end_store_read(RequestId id);

  /// Ends a request in any state; its blocks are released behind the steps in flight. False if the id is unknown.
  bool abort(RequestId id);

  /// Running requests come first, in the order of service, then waiting ones (but those of a higher priority before
  /// running ones). When blocks are short a request behind the one in need is preempted, with all its sequences; of
  /// several with the lowest priority VictimPolicy::cheapest spares those that have not progressed since they were last
  /// preempted. From then on the step admits and resumes no request. The first in the order always progresses. A
  /// waiting request whose prefix a running one is computing waits for that, and lets others pass. At most one plan is
  /// outstanding: commit() it before planning again. A plan may be empty though there is work: one that only made room,
  /// or that only brought back requests which had no blocks to move. Then StepPlan::plan_again() says so. No decision
  /// depends on `now`, the time on the caller's clock.
  StepPlan plan(double now);
  /// The same into `plan`, whose memory it uses again: for thousands of sequences a plan is megabytes, and who keeps
  /// one spares every step from taking them anew. What it held is gone, unless InvalidArgument is thrown.
  void plan(double now, StepPlan& plan);

  /// Takes in the result of the outstanding plan. Results of requests aborted meanwhile are ignored. Throws
  /// InvalidArgument for a result that does not answer the plan; nothing has changed then.
  std::vector<SampleUpdate> commit(const StepResult& result);

  /// Tokens that come after a sample's last one whatever is drawn: they are known from now on, and computed like any
  /// others, as one chunk where the step has room. As many are taken as leave one to be drawn; returns how many: 0 of a
  /// beam search, of a sample that has drawn nothing yet or has ended, of an unknown request, and without
  /// SchedulerConfig::jump_ahead. `scored`: the rows that predict them are wanted, so the sequence computes them itself
  /// whatever others have left in the cache. Throws InvalidArgument while a plan is outstanding and for a negative
  /// token, and std::bad_alloc; then nothing has changed.
  std::uint32_t extend(RequestId id, std::uint32_t sample, std::span<const TokenId> tokens, bool scored = false);

  /// What preemptions cost from now on.
  void set_preemption_costs(const PreemptionCosts& costs) noexcept;

  bool has_work() const noexcept;
  SchedulerStats stats() const noexcept;
  /// Adds requests, block tables and the map of blocks to a picture, within these limits.
  void draw(const SnapshotLimits& limits, EngineSnapshot& picture) const;
  /// Whether the request waits or runs.
  bool serves(RequestId id) const noexcept;
  /// Tokens of a sample or beam so far (prompt, then output); empty when unknown.
  std::vector<TokenId> tokens(RequestId id, std::uint32_t sample) const;
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
