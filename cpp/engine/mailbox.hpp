// The only thing that an engine's thread and its callers share: commands in, outputs and counters out.
//
// Caller side: any thread. Loop side: the engine thread. One mutex, held for moves of vectors only, never while
// anything is computed and never while code outside this class runs.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "engine/engine_stats.hpp"
#include "engine/request_table.hpp"
#include "pagedcore/engine.hpp"

namespace pagedcore {

/// Made by the caller's thread with all that the request needs to be taken in, and to end.
struct SubmitCommand {
  SchedulerRequest scheduling;  // with the id
  std::unique_ptr<RequestState> request;
  bool shared = false;  // of a prefix: every salt may use it
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
  /// `request_memory`: bytes that requests may hold together; a request counts until its last output is taken.
  explicit Mailbox(std::uint32_t most_events = 0,
                   std::uint64_t request_memory = std::numeric_limits<std::uint64_t>::max())
      : most_events_(most_events), request_memory_(request_memory) {
    if (most_events > 0) events_.reserve(1);  // to say that events were lost
  }

  // Caller side. All but close() throw Aborted when the mailbox is closed or poisoned; nothing has changed then.

  /// Gives the requests their ids and their arrival, which is one, and posts all of them or, when it throws, none.
  /// Throws OutOfMemory when they do not fit beside those that are there.
  std::vector<RequestId> submit(std::vector<SubmitCommand> commands);
  /// Of an abort nothing, unless the request is open and is not aborted yet: what waits here is bounded by what is
  /// open.
  void post(Command command);
  /// Outputs that are ready, waiting at most `timeout` seconds. Outputs left by a poisoned engine come before the
  /// throw. Where there is no memory for all, those for which there is; std::bad_alloc when there is none for one.
  std::vector<EngineOutput> wait(double timeout);
  bool busy() const;
  EngineStats stats() const;
  /// Events that were published and not yet taken: the latest `most_events`, or one that says `cleared`.
  std::vector<CacheEvent> take_events();
  /// Ends both sides; wakes everybody. Idempotent.
  void close() noexcept;

  // Loop side.

  /// Moves out all commands, sleeping up to `patience` (none: for ever) until there is one. False when closed.
  /// `commands` comes empty.
  bool take(std::vector<Command>& commands, std::optional<std::chrono::milliseconds> patience);
  /// Appends the outputs and events (both left empty) and replaces the counters. Events for which there is no memory
  /// are forgotten, as those that nobody takes.
  void publish(News& outputs, std::vector<CacheEvent>& events, const EngineStats& stats) noexcept;
  /// The engine cannot go on. Takes the last outputs; from now on every call of the caller side throws `reason`.
  void poison(const std::string& reason, News outputs) noexcept;

  /// Seconds since the mailbox was made: the engine's clock.
  double now() const noexcept;

 private:
  using Clock = std::chrono::steady_clock;
  enum class State { open, closed, poisoned };
  /// What is counted of a request until its last output is taken.
  struct Open {
    std::uint64_t bytes = 0;
    bool aborted = false;
  };
  void require_open() const;
  void forget_events() noexcept;

  const Clock::time_point start_ = Clock::now();
  mutable std::mutex mutex_;
  std::condition_variable commands_ready_, outputs_ready_;
  State state_ = State::open;
  std::string reason_;  // of the poisoning
  std::uint64_t last_id_ = 0;
  std::uint64_t open_requests_ = 0;  // submitted, last output not yet published
  std::vector<Command> commands_;
  News outputs_;
  const std::uint32_t most_events_;
  std::vector<CacheEvent> events_;
  const std::uint64_t request_memory_;
  std::uint64_t held_ = 0;  // of it: the sum of open_
  std::unordered_map<std::uint64_t, Open> open_;
  EngineStats stats_;
};

}  // namespace pagedcore
