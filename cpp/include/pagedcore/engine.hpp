// The engine: a native thread that plans, runs and commits steps, and a queue of outputs that the caller drains.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pagedcore/backend.hpp"
#include "pagedcore/export.hpp"
#include "pagedcore/model.hpp"
#include "pagedcore/sampling.hpp"
#include "pagedcore/scheduler.hpp"

namespace pagedcore {

struct EngineConfig {
  std::uint32_t block_size = 16;
  std::uint32_t num_blocks = 0;    // 0: from kv_cache_bytes
  std::size_t kv_cache_bytes = 0;  // used when num_blocks is 0; both 0: as much as max_sequences full contexts would
                                   // need, at most 1 GiB and at most half of the memory that is available
  std::uint32_t max_batched_tokens = 512;
  std::uint32_t max_sequences = 256;
  std::uint32_t max_context = 0;  // 0: the model's
  double watermark = 0.01;
  bool enable_prefix_caching = true;
  PreemptionMode preemption = PreemptionMode::automatic;
  ServiceOrder order = ServiceOrder::fcfs;
  AdmissionPolicy admission = AdmissionPolicy::known;
  VictimPolicy victim = VictimPolicy::cheapest;
  AllocationPolicy allocation = AllocationPolicy::paged;  // else a baseline for comparisons: no sharing, no swap space
  std::uint32_t max_reservation = 0;  // of such a baseline, tokens of the longest sequence; 0: the longest that fits
  std::size_t swap_bytes = 0;         // host memory for the blocks of preempted requests
  std::string swap_file;              // a file for those that find no place there; empty: none. Must not exist; made on
                                      // start, without a name from then on, gone with the engine
  std::size_t swap_file_bytes = 0;    // 0: as much as the KV cache
  std::uint32_t max_cache_events = 0;  // > 0: keep up to so many events for Engine::cache_events()
  std::string trace_file;              // write a trace of the scheduler there (see trace.hpp); empty: none
  std::string device = "cpu";          // cpu, cuda or cuda:<index>
  CpuOptions cpu;
  CudaOptions cuda;  // its device index is the one that `device` names
};

/// Every byte of tensors that the engine will hold, by purpose. Arithmetic: available before anything is allocated.
/// Bookkeeping comes on top: under 200 bytes per block of 16 tokens, and the requests themselves.
struct MemoryPlan {
  std::size_t weights = 0;
  std::size_t activations = 0;
  std::size_t kv_block = 0;  // bytes of one block
  std::uint32_t num_blocks = 0;
  std::uint32_t block_size = 0;
  std::uint32_t max_context = 0;
  std::size_t swap = 0;                // host memory of the swap space
  std::size_t swap_file = 0;           // bytes of the swap file; not memory
  std::uint32_t num_swap_blocks = 0;   // of both together
  std::vector<std::uint32_t> windows;  // of the layer groups, as in KvCacheConfig
  std::size_t kv_cache() const noexcept { return kv_block * num_blocks; }
  std::size_t total() const noexcept { return weights + activations + kv_cache() + swap; }
  /// Tokens whose KV fits at once, in all layer groups, if no window frees any of it.
  std::uint64_t num_layer_groups() const noexcept { return std::max<std::uint64_t>(1, windows.size()); }
  std::uint64_t kv_tokens() const noexcept { return num_blocks / num_layer_groups() * block_size; }
};

/// Throws InvalidArgument when the budget is too small for one block, or for one token of one request.
PAGEDCORE_API MemoryPlan plan_memory(const ModelDescription& model, const EngineConfig& config);

struct EngineRequest {
  std::vector<TokenId> prompt;
  SamplingParams sampling;
  std::optional<BeamSearchParams> beam;  // beam search instead of sampling; `sampling` is then ignored
  std::string prefix;  // name of a registered prefix, with whose tokens the prompt begins; empty: none
  std::uint64_t salt = 0;
  bool stream = false;        // deliver every token as it comes; otherwise each sample once, when it ends
  std::int32_t priority = 0;  // higher goes first, with ServiceOrder::priority; within +-kMostPriority
  std::uint64_t tenant = 0;   // who is served by it, for ServiceOrder::fair
};

/// News of one sample. With stream, `tokens` are those since the last news of this sample, else all of them.
/// A beam search ends with one output for each hypothesis (there may be fewer than n), best first; `sample` counts
/// them. With stream, sample 0 grows on the way by what can no longer change: the tokens that the running beams and the
/// best hypothesis so far have in common.
struct EngineOutput {
  RequestId request{};
  std::uint32_t sample = 0;
  std::vector<TokenId> tokens;
  std::vector<PositionLogprobs> logprobs;         // one per token, when asked for
  std::vector<PositionLogprobs> prompt_logprobs;  // one per prompt token but the first; with the first news of sample 0
  FinishReason finish = FinishReason::none;
  float score = 0.0f;               // of a hypothesis: its normalised sum of log-probabilities
  std::string error;                // why, when finish is error
  std::uint32_t cached_tokens = 0;  // prompt tokens taken from the prefix cache
  double time = 0.0;                // seconds on the engine's steady clock
  bool last = false;                // nothing more will come for this request
};

/// What moving blocks to and from the swap space has cost so far.
struct SwapCounters {
  std::uint64_t bytes_out = 0, bytes_in = 0;            // host memory and file
  std::uint64_t file_bytes_out = 0, file_bytes_in = 0;  // of them the file
  std::uint64_t errors = 0;                             // blocks that could not be written, read or trusted
  double seconds_out = 0.0, seconds_in = 0.0;
  double block_out = 0.0, block_in = 0.0;  // seconds for one block, a moving average; 0: none was moved
};

/// Runs one step of a plan. The scheduler cannot tell implementations apart.
class PAGEDCORE_API Executor {
 public:
  virtual ~Executor();
  /// Called on the engine thread. A request that fails is named in StepResult::failed; an exception fails the engine.
  virtual StepResult run(const StepPlan& plan) = 0;
  /// Engine thread. Zeros for an executor that moves no blocks.
  virtual SwapCounters swap_counters() const;
};

class PAGEDCORE_API Engine {
 public:
  /// Plans the memory, allocates it, loads the model and starts the thread. `weights` is not needed afterwards.
  Engine(const ModelDescription& model, const WeightSource& weights, const EngineConfig& config);
  ~Engine();  // close()
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // All of the following are thread-safe. Those that talk to the engine's thread throw Aborted after close(), after the
  // engine was poisoned (with the reason), and in a child of fork(); memory_plan(), model() and describe() always
  // answer.

  /// Throws InvalidArgument for a request that is malformed or could never fit; nothing else is affected by that.
  RequestId submit(EngineRequest request);
  /// The checks of submit() alone, so that all requests of a batch can be checked before any of them runs.
  void validate(const EngineRequest& request) const;
  /// Ends a request; its last output says FinishReason::abort. Unknown or finished ids are ignored.
  void abort(RequestId id);
  /// Moves out all outputs that are ready, waiting at most `timeout` seconds for the first; empty on time-out.
  std::vector<EngineOutput> wait(double timeout);
  /// True while submitted requests have not delivered their last output.
  bool busy() const;

  /// A flat mapping; keys are documented in docs/stats.md.
  std::map<std::string, double> stats() const;
  const MemoryPlan& memory_plan() const noexcept;
  const ModelDescription& model() const noexcept;
  std::string describe() const;
  void clear_prefix_cache();
  /// Computes a prefix and keeps its blocks in memory under a name until release_prefix(): requests that name it share
  /// them, with prefix caching or without. The id is that of the request that computes it, whose one output says that
  /// it is there (FinishReason::length) or why it is not (error). Throws InvalidArgument for an empty name, one in use,
  /// and a prefix that can never fit.
  RequestId register_prefix(const std::string& name, std::vector<TokenId> tokens, std::uint64_t salt = 0);
  /// Requests cannot name it any more; its blocks go when the last one that does has ended. Throws InvalidArgument for
  /// an unknown name.
  void release_prefix(const std::string& name);
  /// News of the prefix cache since the last call, oldest first (EngineConfig::max_cache_events).
  std::vector<CacheEvent> cache_events();
  /// Testing aid: before every `period`-th step preempt the latest running request that has gained a token since it was
  /// last preempted this way, as Scheduler::force_preempt(); period 0 turns it off.
  void force_preemption(std::uint32_t period, PreemptionMode mode = PreemptionMode::recompute);

  /// Ends all requests (abort), stops the thread and returns all memory. Idempotent.
  void close() noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pagedcore
