// The scheduler: a pure object with a clock passed in. plan() decides the next step, commit() takes its results in.
//
// One rule covers prefill, chunked prefill, decode and recomputation: a sequence wants its tokens in
// [computed, number of tokens) computed, and a step computes as much of that as budgets and blocks allow. The row of
// the last known token is sampled. Preempted sequences go back to `computed = 0` and need nothing else.
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
#include "pagedcore/kv_cache.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore {

struct SchedulerConfig {
  std::uint32_t max_batched_tokens = 512;  // rows of one step
  std::uint32_t max_sequences = 256;       // sequences of one step
  std::uint32_t max_context = 0;           // tokens of one sequence, prompt and output; 0: no limit but memory
  double watermark =
      0.01;  // share of the blocks that an admission must leave free, so that it is not preempted at once
};

struct SchedulerRequest {
  RequestId id{};
  double arrival = 0.0;         // seconds on the caller's clock; ties keep the order of submission
  std::vector<TokenId> prompt;  // one token at least
  std::uint32_t num_samples = 1;
  std::uint32_t beam_width = 0;   // > 0: a beam search of this width; num_samples is 1
  std::uint32_t max_tokens = 16;  // generated tokens per sample; 0: only compute (score) the prompt
  std::uint64_t salt = 0;         // tenants with different salts never share cached prefixes
  bool prompt_logprobs = false;   // every prompt row is scored, so cached prefixes are not used for it
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
  std::uint32_t table_offset = 0;  // in StepPlan::block_tables
  std::uint32_t table_size = 0;
};

/// Plain data: all that an executor needs, nothing that points into the scheduler.
struct StepPlan {
  StepId step{};                  // 0 for an empty plan, which is not committed
  std::vector<BlockCopy> copies;  // to be done first, as one operation
  std::vector<ScheduledSequence> sequences;
  std::vector<TokenId> tokens;        // [rows]
  std::vector<BlockId> block_tables;  // concatenated
  std::vector<RequestId> preempted;   // requests preempted while planning, for observers

  bool empty() const noexcept { return sequences.empty(); }
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
  std::vector<SampledToken> tokens;  // exactly those that the plan asked for, less those of failed requests
  std::vector<RequestId> failed;     // planned requests that cannot go on (their error is the executor's to report)
  std::vector<BeamResult> beams;     // one for each beam search that the plan sampled, less failed ones
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
  std::uint64_t steps = 0;
  std::uint64_t tokens_computed = 0;  // rows of all committed steps
  std::uint64_t tokens_sampled = 0;
  std::uint64_t tokens_recomputed = 0;  // rows computed again after a preemption
  std::uint64_t prefix_hit_tokens = 0;  // prompt tokens not computed thanks to the prefix cache
  std::uint64_t prefix_waits = 0;       // requests that waited for a prefix that another one was computing
  std::uint64_t preemptions_recompute = 0;
  std::uint64_t forks = 0;  // of samples and beams from one another
  std::uint64_t block_copies = 0;
  std::uint32_t waiting = 0;  // requests
  std::uint32_t running = 0;  // requests with at least one sequence that holds blocks
};

class PAGEDCORE_API Scheduler {
 public:
  Scheduler(const SchedulerConfig& config, const KvCacheConfig& cache);
  ~Scheduler();
  Scheduler(Scheduler&&) noexcept;
  Scheduler& operator=(Scheduler&&) noexcept;

  const SchedulerConfig& config() const noexcept;
  const KvCacheManager& cache() const noexcept;
  KvCacheManager& cache() noexcept;

  /// Throws InvalidArgument for a request that could not finish even alone (with the arithmetic in the message), an
  /// empty prompt, zero samples, samples or prompt log-probabilities together with beams, beams that do not fit
  /// into one step, or an id in use.
  void submit(SchedulerRequest request);
  /// The same checks without submitting. Thread-safe: reads the configuration only.
  void validate(const SchedulerRequest& request) const;

  /// Ends a request in any state; its blocks are released behind the steps in flight. False if the id is unknown.
  bool abort(RequestId id);

  /// First come, first served: running requests first, in order of arrival, then waiting ones. When blocks are short
  /// the latest arrival is preempted (all its sequences, by recomputation); a step that preempted admits nobody. The
  /// request that arrived first always progresses. A waiting request whose prefix a running one is computing waits for
  /// that, and lets others pass. At most one plan is outstanding: commit() it before planning again.
  StepPlan plan(double now);

  /// Takes in the result of the outstanding plan. Results of requests aborted meanwhile are ignored. Throws
  /// InvalidArgument for a result that does not answer the plan; nothing has changed then.
  std::vector<SampleUpdate> commit(const StepResult& result);

  bool has_work() const noexcept;
  SchedulerStats stats() const noexcept;
  /// Tokens of a sample or beam so far (prompt, then output); empty when unknown.
  std::span<const TokenId> tokens(RequestId id, std::uint32_t sample) const noexcept;
  /// Verifies every invariant, the cache's included; throws Corrupt.
  void check() const;
  /// Testing aid: preempts this running request before the next plan, as if blocks were short. False if it holds none.
  bool force_preempt(RequestId id);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pagedcore
