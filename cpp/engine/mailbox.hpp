// The only thing that an engine's thread and its callers share: commands in, outputs and counters out.
//
// Caller side: any thread. Loop side: the engine thread. One mutex, held for moves of vectors only, never while
// anything is computed and never while code outside this class runs.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/engine_stats.hpp"
#include "pagedcore/engine.hpp"

namespace pagedcore {

struct SubmitCommand {
  SchedulerRequest scheduling;  // with the id
  EngineRequest request;
  PrefixId pins{};      // not 0: it computes this prefix
  bool shared = false;  // which every salt may use
};
struct ReleasePrefixCommand {
  PrefixId id{};
};
struct AbortCommand {
  RequestId id{};
};
struct ClearPrefixCacheCommand {};
struct ForcePreemptionCommand {
  std::uint32_t period = 0;
  PreemptionMode mode{};
};
using Command =
    std::variant<SubmitCommand, AbortCommand, ReleasePrefixCommand, ClearPrefixCacheCommand, ForcePreemptionCommand>;

class Mailbox {
 public:
  explicit Mailbox(std::uint32_t most_events = 0) : most_events_(most_events) {}

  // Caller side. All but close() throw Aborted when the mailbox is closed or poisoned; nothing has changed then.

  /// Gives the requests their ids and their arrival, which is one, and posts all of them or, when it throws, none.
  std::vector<RequestId> submit(std::vector<SubmitCommand> commands);
  void post(const Command& command);
  /// Outputs that are ready, waiting at most `timeout` seconds. Outputs left by a poisoned engine come before the
  /// throw.
  std::vector<EngineOutput> wait(double timeout);
  bool busy() const;
  EngineStats stats() const;
  /// Events that were published and not yet taken: the latest `most_events`, or one that says `cleared`.
  std::vector<CacheEvent> take_events();
  /// Ends both sides; wakes everybody. Idempotent.
  void close() noexcept;

  // Loop side.

  /// Moves out all commands, sleeping up to `patience` (none: for ever) until there is one. False when closed.
  bool take(std::deque<Command>& commands, std::optional<std::chrono::milliseconds> patience);
  /// Appends the outputs and events (both left empty) and replaces the counters.
  void publish(std::vector<EngineOutput>& outputs, std::vector<CacheEvent>& events, const EngineStats& stats);
  /// The engine cannot go on. Takes the last outputs; from now on every call of the caller side throws `reason`.
  void poison(std::string reason, std::vector<EngineOutput> outputs) noexcept;

  /// Seconds since the mailbox was made: the engine's clock.
  double now() const noexcept;

 private:
  using Clock = std::chrono::steady_clock;
  enum class State { open, closed, poisoned };
  void require_open() const;

  const Clock::time_point start_ = Clock::now();
  mutable std::mutex mutex_;
  std::condition_variable commands_ready_, outputs_ready_;
  State state_ = State::open;
  std::string reason_;  // of the poisoning
  std::uint64_t last_id_ = 0;
  std::uint64_t open_requests_ = 0;  // submitted, last output not yet published
  std::deque<Command> commands_;
  std::vector<EngineOutput> outputs_;
  const std::uint32_t most_events_;
  std::vector<CacheEvent> events_;
  EngineStats stats_;
};

}  // namespace pagedcore
