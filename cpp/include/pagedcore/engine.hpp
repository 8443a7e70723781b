// The engine: a native thread that plans, runs and commits steps, and a queue of outputs that the caller drains.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pagedcore/backend.hpp"
#include "pagedcore/engine_request.hpp"
#include "pagedcore/export.hpp"
#include "pagedcore/fields.hpp"
#include "pagedcore/kv_store.hpp"
#include "pagedcore/model.hpp"
#include "pagedcore/sampling.hpp"
#include "pagedcore/scheduler.hpp"
#include "pagedcore/snapshot.hpp"

namespace pagedcore {

/// The KV cache of an engine.
struct KvOptions {
  std::uint32_t block_size = 16;
  std::uint32_t num_blocks = 0;
  std::size_t kv_cache_memory = 0;
  bool enable_prefix_caching = true;
  AllocationPolicy allocation = AllocationPolicy::paged;
  std::uint32_t max_reservation = 0;
  std::uint32_t cache_events = 0;

  template <class V>
  static void fields(V&& v) {
    using C = KvOptions;
    v(field("block_size", &C::block_size, "Tokens per block of KV cache.", in(1, kMostBlockSize)));
    v(field("num_blocks", &C::num_blocks, "Blocks of KV cache, instead of kv_cache_memory.", in(1, kMostBlocks))
          .zero_means("what kv_cache_memory holds"));
    v(field("kv_cache_memory", &C::kv_cache_memory, "Memory of the KV cache.", in(1, kMostBytes))
          .bytes()
          .zero_means("what max_sequences full contexts need, at most 1 GiB and half of the available memory, on a GPU "
                      "all of gpu_memory_utilization"));
    v(field("enable_prefix_caching", &C::enable_prefix_caching, kPrefixCachingDoc));
    v(field("allocation", &C::allocation, kAllocationDoc));
    v(field("max_reservation", &C::max_reservation, kMaxReservationDoc, in(1, kMostCount))
          .zero_means("the longest that fits"));
    v(field("cache_events", &C::cache_events, "Events of the prefix cache that are kept; 0: none are recorded.",
            in(0, kMostCount)));
  }
};

/// Where the blocks of preempted requests go.
struct SwapOptions {
  std::size_t swap_space = 0;
  std::string swap_file;
  std::size_t swap_file_size = 0;

  template <class V>
  static void fields(V&& v) {
    using C = SwapOptions;
    v(field("swap_space", &C::swap_space, "Host memory for the KV of requests that make room.", in(1, kMostBytes))
          .bytes()
          .zero_means("no swap space"));
    v(field("swap_file", &C::swap_file,
            "A file for what finds no place there. It must not exist; it has no name while the engine runs and is gone "
            "with it.")
          .path()
          .zero_means("no file"));
    v(field("swap_file_size", &C::swap_file_size, "Size of that file.", in(1, kMostBytes))
          .bytes()
          .zero_means("as much as the KV cache"));
  }
};

/// All options of an engine. Their names are one flat vocabulary: `threads` and `dtype` are those of whichever device
/// the engine runs on.
struct EngineConfig {
  std::string device = "cpu";
  KvOptions kv;
  SchedulerConfig scheduler;
  SwapOptions swap;
  KvStoreOptions store;
  CpuOptions cpu;
  CudaOptions cuda;
  std::size_t request_memory = 0;
  std::uint32_t max_waiting = 0;
  std::string trace_file;
  std::string timeline_file;
  std::int32_t tensor_parallel = 1;

  template <class V>
  static void fields(V&& v) {
    using C = EngineConfig;
    v(field("device", &C::device, "cpu, cuda or cuda:<index>; a GPU needs the CUDA plugin."));
    v(part("kv", &C::kv, "The KV cache."));
    v(part("scheduler", &C::scheduler, "Budgets of a step, and policies."));
    v(part("swap", &C::swap, "Where the KV of requests that make room goes."));
    v(part("store", &C::store, "Where prefixes are kept beyond the engine."));
    v(part("cpu", &C::cpu, "The CPU backend."));
    v(part("cuda", &C::cuda, "The CUDA backend."));
    v(field("request_memory", &C::request_memory,
            "Host memory for requests, apart from their KV: prompts, outputs and log-probabilities, from submission "
            "until "
            "the last output has been taken. A request counts with the most that it may come to need, and is refused "
            "where that does not fit.",
            in(1, kMostBytes))
          .bytes()
          .zero_means("1 GiB, or a quarter of the available memory where that is less"));
    v(field("max_waiting", &C::max_waiting,
            "Requests that may wait to begin. What would exceed it is refused at once (Overloaded).", in(1, 0x7fffffff))
          .zero_means("as many as request_memory holds"));
    v(field("trace_file", &C::trace_file, "Write all that the scheduler is told and plans there, as text, for replay.")
          .path()
          .zero_means("no trace"));
    v(field("timeline_file", &C::timeline_file,
            "Write when each step was planned and run there and, on the CPU, each operation of it, as JSON for viewers "
            "such as Perfetto. Some 30 KB a step of a model of 30 layers.")
          .path()
          .zero_means("no timeline"));
    v(field(
        "tensor_parallel", &C::tensor_parallel,
        "Ranks that share the model, each with a part of its weights, heads and KV and a share of `threads`; on the "
        "CPU only. Results have the same bits for any number of them.",
        in(1, 256)));
  }
};

/// Throws InvalidArgument for a value outside its range and for options that contradict each other, and Unsupported for
/// a type that the device does not compute in.
PAGEDCORE_API void validate(const EngineConfig& config);

/// Every byte of tensors that the engine will hold, by purpose, and the most that requests may. Arithmetic: available
/// before anything is allocated. Bookkeeping comes on top: under 200 bytes per block of 16 tokens.
struct MemoryPlan {
  std::size_t weights = 0;
  std::size_t native_weights = 0;
  std::size_t integer_weights = 0;
  std::size_t dense_weights = 0;
  std::size_t activations = 0;
  std::size_t kv_block = 0;
  std::uint32_t num_blocks = 0;
  std::uint32_t block_size = 0;
  std::uint32_t max_context = 0;
  std::size_t swap = 0;
  std::size_t swap_file = 0;
  std::uint32_t num_swap_blocks = 0;
  std::size_t requests = 0;
  std::size_t store = 0;
  std::vector<std::uint32_t> windows;
  std::vector<std::uint64_t> rank_weights;
  std::vector<std::uint64_t> rank_activations;
  std::vector<std::uint64_t> rank_kv_block;

  template <class V>
  static void fields(V&& v) {
    using P = MemoryPlan;
    v(field("weights", &P::weights, "Bytes."));
    v(field("native_weights", &P::native_weights,
            "Bytes of the weights that are kept in a block format, of their file or by weights = int8 or int4; the "
            "others are in the compute type."));
    v(field("integer_weights", &P::integer_weights, "Bytes of those whose products are in integers (dtype = int8)."));
    v(field("dense_weights", &P::dense_weights,
            "Bytes of the matrices in the compute type; norms and biases are the rest."));
    v(field("activations", &P::activations, "Bytes."));
    v(field("kv_block", &P::kv_block, "Bytes of one block, the layers of one group."));
    v(field("num_blocks", &P::num_blocks, "Blocks of KV cache."));
    v(field("block_size", &P::block_size, "Tokens per block."));
    v(field("max_context", &P::max_context, "Tokens that one sequence may have."));
    v(field("swap", &P::swap, "Host memory of the swap space."));
    v(field("swap_file", &P::swap_file, "Bytes of the swap file; not memory."));
    v(field("num_swap_blocks", &P::num_swap_blocks, "Of both together."));
    v(field("requests", &P::requests,
            "Host memory that requests may take together, apart from their KV: taken as they need it."));
    v(field("store", &P::store,
            "Host memory of kv_store: blocks on their way, and at most what finding those on disk takes."));
    v(field("windows", &P::windows, "Of the groups of layers, as in KvCacheConfig; 0: full context."));
    v(field("rank_weights", &P::rank_weights, "Of `weights`, those of each rank (tensor_parallel)."));
    v(field("rank_activations", &P::rank_activations, "Likewise of `activations`."));
    v(field("rank_kv_block", &P::rank_kv_block, "Likewise of `kv_block`."));
  }

  std::size_t kv_cache() const noexcept { return kv_block * num_blocks; }
  std::size_t total() const noexcept { return weights + activations + kv_cache() + swap + store + requests; }
  std::uint64_t num_layer_groups() const noexcept { return windows.empty() ? 1 : windows.size(); }
  /// Tokens whose KV fits at once, in all layer groups, if no window frees any of it.
  std::uint64_t kv_tokens() const noexcept { return num_blocks / num_layer_groups() * block_size; }
};

/// Throws InvalidArgument when the budget is too small for one block, or for one token of one request.
/// `device_memory`: bytes that are free on the device; 0: the device, which must be there, is asked. With a number a
/// plan for a GPU needs neither a GPU nor the plugin. `weights`, of which only types are asked, says which block
/// formats there are to keep; without it all weights count in the compute type.
PAGEDCORE_API MemoryPlan plan_memory(const ModelDescription& model, const EngineConfig& config,
                                     std::size_t device_memory = 0, const WeightSource* weights = nullptr);

/// What moving blocks to and from the swap space has cost so far.
struct SwapCounters {
  std::uint64_t bytes_out = 0;
  std::uint64_t bytes_in = 0;
  std::uint64_t file_bytes_out = 0;
  std::uint64_t file_bytes_in = 0;
  std::uint64_t errors = 0;
  double seconds_out = 0.0;
  double seconds_in = 0.0;
  double block_out = 0.0;
  double block_in = 0.0;

  template <class V>
  static void fields(V&& v) {
    using C = SwapCounters;
    v(field("bytes_out", &C::bytes_out, "Bytes moved to the swap space, host memory and file.")
          .counter("swap_bytes_out"));
    v(field("bytes_in", &C::bytes_in, "And back.").counter("swap_bytes_in"));
    v(field("file_bytes_out", &C::file_bytes_out, "Of the bytes moved: to the file.").counter("swap_file_bytes_out"));
    v(field("file_bytes_in", &C::file_bytes_in, "And from there.").counter("swap_file_bytes_in"));
    v(field("errors", &C::errors, "Blocks that the swap space could not write, read or trust.").counter("swap_errors"));
    v(field("seconds_out", &C::seconds_out, "Of the steps: moving blocks to the swap space.")
          .counter("swap_seconds_out"));
    v(field("seconds_in", &C::seconds_in, "And back.").counter("swap_seconds_in"));
    v(field("block_out", &C::block_out, "Seconds for one block, a moving average; 0: none was moved.").counter(""));
    v(field("block_in", &C::block_in, "Likewise.").counter(""));
  }
};

/// Runs one step of a plan. The scheduler cannot tell implementations apart.
class PAGEDCORE_API Executor {
 public:
  virtual ~Executor();
  /// Called on the engine thread. A request that fails is named in StepResult::failed; an exception fails the engine.
  virtual StepResult run(const StepPlan& plan) = 0;
  /// Engine thread. Zeros for an executor that moves no blocks.
  virtual SwapCounters swap_counters() const;
  /// Engine thread, between steps: copies blocks to host memory, or fills them from there, KvStorage::block_bytes()
  /// each. Both wait until it is done. The default throws Unsupported.
  virtual void get_blocks(std::span<const BlockId> blocks, std::span<std::byte* const> dst);
  virtual void put_blocks(std::span<const BlockId> blocks, std::span<const std::byte* const> src);
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

  /// Throws InvalidArgument for a request that is malformed or could never fit, or whose request_id is in use,
  /// OutOfMemory for one that does not fit into `request_memory` beside those that are there, and Overloaded when
  /// `max_waiting` others have not begun; nothing else is affected by that.
  RequestId submit(EngineRequest request);
  /// Checks all of them, then submits all; when one is refused, none is submitted, and the error names which ("request
  /// 3: ..."). They arrive at one time, in this order.
  std::vector<RequestId> submit_all(std::vector<EngineRequest> requests);
  /// The checks of submit() alone, so that all requests of a batch can be checked before any of them runs.
  void validate(const EngineRequest& request) const;
  /// Ends a request; its last output says FinishReason::abort. Unknown or finished ids are ignored.
  void abort(RequestId id);
  /// The same by RequestOptions::request_id.
  void abort(std::string_view request_id);
  /// Moves out all outputs that are ready, waiting at most `timeout` seconds for the first; empty on time-out. Fewer,
  /// where there is no memory for all; std::bad_alloc where there is none for one: they stay. Throws InvalidArgument
  /// for a time-out that is no number, and for a queue that there is not.
  std::vector<EngineOutput> wait(double timeout, QueueId queue = {});

  /// A descriptor that poll(), epoll or an event loop can watch: readable while wait() would not sleep, that is, while
  /// outputs wait or the engine is closed or has failed. wait() makes it unreadable; nobody else is to read, write or
  /// close it. It lives as long as its queue, and as the engine. Made at the first call (an eventfd, or a pipe where
  /// there is none): throws Io when the process has no descriptor left.
  int output_fd(QueueId queue = {});
  /// Calls back on the engine's thread after each step that brought outputs, once for all of them, and when the engine
  /// is closed or fails. If outputs wait already, also at once, on this thread. The callback must neither throw (that
  /// ends the process) nor block, and may call wait(0), submit() and abort(), but neither this nor close(). An empty
  /// one ends it: when this returns, the callback before is not running and will not be called again.
  void on_output(std::function<void()> callback, QueueId queue = {});
  /// A place for outputs beside the engine's own, for callers that take theirs apart from all others':
  /// EngineRequest::queue. The outputs of one request stay in order.
  QueueId open_queue();
  /// Drops what is in it and ends the requests whose outputs would come there. Queue 0 and unknown ones are left alone.
  void close_queue(QueueId queue) noexcept;

  /// Refuses requests (Aborted) from now on and waits until those that are there, the waiting ones too, have ended, at
  /// most `timeout` seconds. Returns those that have not, which go on. resume() ends it.
  std::vector<RequestId> drain(double timeout);
  /// Returns when no step is under way. None begins until resume(): requests are accepted and wait, aborts and
  /// deadlines end them. Waits for up to a step.
  void pause();
  /// Undoes pause() and drain().
  void resume();
  /// The engine's clock, on which outputs say their times: seconds since it was made, steady.
  double now() const noexcept;
  /// True while submitted requests have not delivered their last output.
  bool busy() const;

  /// A flat mapping; docs/stats.md lists them.
  std::map<std::string, double> stats() const;
  const MemoryPlan& memory_plan() const noexcept;
  const ModelDescription& model() const noexcept;
  std::string describe() const;
  void clear_prefix_cache();
  /// Computes a prefix and keeps its blocks in memory under a name until release_prefix(): requests that name it share
  /// them, with prefix caching or without. The id is that of the request that computes it, whose one output says that
  /// it is there (FinishReason::length) or why it is not (error). Throws InvalidArgument for an empty name, one in use,
  /// and a prefix that can never fit.
  ///
  /// A prefix belongs to its salt: under any other its name is unknown, or means that salt's own. One that is `shared`
  /// is usable under every salt that has none of its own by this name; nothing that an engine says shows its tokens.
  RequestId register_prefix(const std::string& name, std::vector<TokenId> tokens, std::uint64_t salt = 0,
                            bool shared = false, QueueId queue = {});
  /// Requests cannot name it any more; its blocks go when the last one that does has ended. `salt` is the one that it
  /// was registered under, shared or not. Throws InvalidArgument for a name that is unknown there.
  void release_prefix(const std::string& name, std::uint64_t salt = 0);
  /// The KV of the leading full blocks of `tokens` that are in the prefix cache under this salt, as bytes that another
  /// engine takes, in another process too: of the same model, options and instruction set (KvStoreOptions::
  /// kv_transfer). Copied between steps, some at a time. Throws Unsupported where the options do not allow it, and
  /// InvalidArgument when the cache has no full block of it: compute it first, with a request or as a registered
  /// prefix.
  std::vector<std::byte> export_prefix(std::span<const TokenId> tokens, std::uint64_t salt = 0);
  /// Puts what export_prefix() gave into the prefix cache, under its salt; whatever is there already stays. Returns how
  /// many leading tokens the cache then has: fewer than were exported where blocks are short. Throws Corrupt for
  /// bytes that are damaged or cut off, InvalidArgument for those of another model, other options or another
  /// instruction set; nothing has changed then.
  std::uint32_t import_prefix(std::span<const std::byte> bytes);
  /// News of the prefix cache since the last call, oldest first (KvOptions::cache_events), waiting at most `timeout`
  /// seconds for the first; empty on time-out. Throws InvalidArgument for a time-out that is no number.
  std::vector<CacheEvent> cache_events(double timeout = 0.0);
  /// What is where, drawn by the engine's thread between two steps: it waits for the end of the one under way, and
  /// takes some microseconds for each 1,000 blocks and entries. Throws InvalidArgument for limits outside their ranges.
  EngineSnapshot snapshot(const SnapshotLimits& limits = {}) const;
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
