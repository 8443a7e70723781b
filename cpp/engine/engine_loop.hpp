// The engine without a model: a thread that plans, runs and commits steps, between a mailbox and an executor.
//
// Engine puts a LocalExecutor into it; tests put in what they like.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/fork_guard.hpp"
#include "engine/mailbox.hpp"
#include "engine/prefix_names.hpp"
#include "engine/request_memory.hpp"
#include "engine/request_table.hpp"
#include "engine/step_history.hpp"
#include "engine/store_traffic.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/trace.hpp"

namespace pagedcore {

/// What a model can be asked for.
struct ModelTraits {
  bool generates = true;
  bool is_bidirectional = false;
  Pooling pooling = Pooling::last;   // what it was trained with
  std::uint32_t hidden_size = 0;     // of the rows that are pooled
  std::uint32_t embedding_size = 0;  // of an embedding
};
ModelTraits traits_of(const ModelDescription& model) noexcept;

/// What a request is checked against before it is accepted.
struct RequestLimits {
  std::int32_t vocab_size = 0;
  std::uint32_t max_context = 0;
  std::uint32_t max_cache_events = 0;
  std::uint64_t request_memory = std::numeric_limits<std::uint64_t>::max();  // bytes, of all together
  std::uint32_t max_waiting = 0;                                             // 0: any number
  ModelTraits model = {};
};

/// Where prefixes go beyond the engine.
struct PrefixPlaces {
  std::unique_ptr<store::BlockStore> store = {};  // where there is one
  std::optional<store::Identity> identity = {};   // where prefixes may be exported and imported
  store::BlockFormat format = {};
};

class EngineLoop {
 public:
  /// Starts the thread, with all signals blocked. Throws OutOfMemory when no thread can be started. `requests` is the
  /// table that the executor reads.
  EngineLoop(const RequestLimits& limits, Scheduler scheduler, std::unique_ptr<RequestTable> requests,
             std::unique_ptr<Executor> executor, std::optional<TraceWriter> trace = {}, PrefixPlaces places = {},
             std::unique_ptr<Timeline> timeline = {});
  /// close(). Not to be called in a child of fork(): leak the object there.
  ~EngineLoop();
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  // As in Engine.
  RequestId submit(EngineRequest request);
  std::vector<RequestId> submit_all(std::vector<EngineRequest> requests);
  void validate(const EngineRequest& request) const;
  void abort(RequestId id);
  void abort(std::string_view request_id);
  std::vector<EngineOutput> wait(double timeout, QueueId queue = {});
  QueueId open_queue();
  void close_queue(QueueId queue) noexcept;
  int output_fd(QueueId queue = {});
  void on_output(std::function<void()> callback, QueueId queue = {});
  std::vector<RequestId> drain(double timeout);
  void pause();
  void resume();
  double now() const noexcept { return mailbox_.now(); }
  bool busy() const;
  EngineStats stats() const;
  void clear_prefix_cache();
  RequestId register_prefix(const std::string& name, std::vector<TokenId> tokens, std::uint64_t salt = 0,
                            bool shared = false, QueueId queue = {});
  void release_prefix(const std::string& name, std::uint64_t salt = 0);
  std::vector<std::byte> export_prefix(std::span<const TokenId> tokens, std::uint64_t salt);
  std::uint32_t import_prefix(std::span<const std::byte> bytes);
  std::vector<CacheEvent> cache_events(double timeout);
  EngineSnapshot snapshot(const SnapshotLimits& limits);
  void force_preemption(std::uint32_t period, PreemptionMode mode = PreemptionMode::recompute);
  /// When it returns the thread has ended, and the executor and the table have been destroyed.
  void close() noexcept;
  const ForkGuard& fork_guard() const noexcept { return fork_guard_; }

 private:
  void check_kind(const EngineRequest& request) const;
  Pooling pooling_of(const EngineRequest& request) const noexcept;
  SchedulerRequest checked(const EngineRequest& request) const;
  RequestBytes bytes_of(const EngineRequest& request, std::uint32_t max_tokens) const;
  /// Checks a request and finds its prefix, if it names one: then `naming` is locked, and has to be until the command
  /// is posted.
  std::uint32_t stored_tokens(const SchedulerRequest& request) const;
  void act_between_steps(std::packaged_task<void(Scheduler&, Executor&, TraceWriter*)> act);
  const store::Identity& identity_of_prefixes() const;
  SubmitCommand command_of(EngineRequest&& request, std::unique_lock<std::mutex>& naming) const;

  // Everything below runs on the engine thread.
  void run() noexcept;
  std::optional<std::chrono::duration<double>> patience() const noexcept;
  void run_commands();
  void run_command(SubmitCommand& command);
  void run_command(AbortCommand& command);
  void run_command(ReleasePrefixCommand& command);
  void run_command(ClearPrefixCacheCommand& command);
  void run_command(ForcePreemptionCommand& command);
  void run_command(SnapshotCommand& command);
  void run_command(CacheCommand& command);
  template <class Act>
  void with_memory(const Act& act);
  void end_overdue();
  void end_orphans();
  bool has_store_work() const noexcept;
  void tend_store();
  void want_stored(RequestId id);
  void keep(const RequestState& request, std::span<const TokenId> output) noexcept;
  void keep_prompt(const RequestState& request) noexcept;
  void write_last();
  void step();
  void note_scheduled(const StepPlan& plan, double now);
  void preempt_latest();
  void measure(const StepPlan& plan, double seconds);
  void forget_prefix(PrefixId id);
  void take_in(const SampleUpdate& update, bool& has_token, double now);
  void report(RequestState& request, std::uint32_t sample, FinishReason finish);
  void report_beams(RequestState& request, bool ended);
  void end_request(RequestId id, FinishReason finish) noexcept;
  void stop(RequestState& request, FinishReason finish);
  void end(RequestState& request, FinishReason finish) noexcept;
  void count_finish(FinishReason finish) noexcept;
  void publish();
  void fail(const char* reason) noexcept;

  const RequestLimits limits_;
  const ForkGuard fork_guard_;
  Mailbox mailbox_;

  // Touched by the engine thread only while it runs; but checked() calls Scheduler::validate, which reads constants.
  Scheduler scheduler_;
  std::unique_ptr<RequestTable> requests_;
  std::unique_ptr<Executor> executor_;
  std::optional<TraceWriter> trace_;  // of all that goes into the scheduler
  struct Beyond {
    const std::optional<store::Identity> identity;  // where prefixes may leave the engine
    const store::BlockFormat format;
    mutable std::mutex mutex = {};               // callers ask what the store has, until it closes
    std::unique_ptr<StoreTraffic> traffic = {};  // where there is a store
  } beyond_;
  StepPlan plan_;  // kept for its memory
  struct Taken {
    std::vector<Command> commands;  // taken from the mailbox, those from `next` on not yet run
    std::size_t next = 0;
  } taken_;
  News outputs_;                    // not yet published
  std::vector<CacheEvent> events_;  // likewise
  EngineStats stats_;
  struct Costs {
    PreemptionCosts measured;  // a moving average
    PreemptionCosts known;     // those that the scheduler has
  } costs_;
  struct Pace {
    std::uint64_t steps = 0;
    std::uint32_t empty_plans = 0;  // in a row
    std::uint64_t begun = 0;        // requests that wait no more, since the last publication
    bool paused = false;
    ForcePreemptionCommand forced;  // the latest
  } pace_;
  StepHistory history_;

  mutable std::mutex naming_;  // held while a command that names a prefix is posted, so that commands keep their order
  PrefixNames prefixes_;

  std::mutex closing_;
  std::thread thread_;
};

}  // namespace pagedcore
