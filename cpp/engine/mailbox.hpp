// The only thing that an engine's thread and its callers share: commands in, outputs and counters out.
//
// Caller side: any thread. Loop side: the engine thread. One mutex, held for moves of vectors only, never while
// anything is computed and never while code outside this class runs.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <future>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "engine/engine_stats.hpp"
#include "engine/output_queue.hpp"
#include "engine/request_table.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/trace.hpp"

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
/// Dropped without an answer where the engine ends before it comes to it.
struct SnapshotCommand {
  SnapshotLimits limits;
  std::promise<EngineSnapshot> picture;
};
/// What a caller wants done to the cache between two steps; he has the future. Dropped likewise.
struct CacheCommand {
  std::packaged_task<void(Scheduler&, Executor&, TraceWriter*)> act;
};
using Command = std::variant<SubmitCommand, AbortCommand, ReleasePrefixCommand, ClearPrefixCacheCommand,
                             ForcePreemptionCommand, SnapshotCommand, CacheCommand>;

/// What the loop finds when it looks into its mailbox.
struct MailboxState {
  bool open = true;
  bool paused = false;   // no step may begin
  bool orphans = false;  // a queue was closed: requests whose outputs nobody will take may be there
};

/// Bounds on what callers may have there together.
struct MailboxLimits {
  std::uint32_t most_events = 0;
  /// Bytes that requests may hold; a request counts until its last output is taken.
  std::uint64_t request_memory = std::numeric_limits<std::uint64_t>::max();
  std::uint32_t max_waiting = 0;  // requests that have not begun; 0: any number
};

class Mailbox {
 public:
  explicit Mailbox(const MailboxLimits& limits = {});

  // Caller side. All but close() and close_queue() throw Aborted when the mailbox is closed or poisoned; nothing has
  // changed then.

  /// Gives the requests their ids and their arrival, which is one, and posts all of them or, when it throws, none.
  /// Throws OutOfMemory when they do not fit beside those that are there, Overloaded when too many wait, Aborted while
  /// it drains, InvalidArgument for a name that is in use and for a queue that there is not.
  std::vector<RequestId> submit(std::vector<SubmitCommand> commands);
  /// Of an abort nothing, unless the request is open and is not aborted yet: what waits here is bounded by what is
  /// open.
  void post(Command command);
  /// The request of this name; none when none is open.
  std::optional<RequestId> named(std::string_view name) const;
  /// Outputs of a queue that are ready, waiting at most `timeout` seconds. Outputs left by a poisoned engine come
  /// before the throw. Where there is no memory for all, those for which there is; std::bad_alloc when there is none
  /// for one.
  std::vector<EngineOutput> wait(double timeout, QueueId queue = {});
  QueueId open_queue();
  /// What is in it is dropped, and so is all that its requests, which the loop is to end, would still bring.
  void close_queue(QueueId queue) noexcept;
  /// The descriptor that is readable while wait() would not sleep. Throws Io.
  int output_fd(QueueId queue);
  void on_output(std::function<void()> callback, QueueId queue);
  bool busy() const;
  EngineStats stats() const;
  /// Events that were published and not yet taken: the latest `most_events`, or one that says `cleared`. Waits at most
  /// `timeout` seconds for the first.
  std::vector<CacheEvent> take_events(double timeout);
  /// Refuses requests from now on and waits until those that are there have ended, at most `timeout` seconds. Returns
  /// those that have not.
  std::vector<RequestId> drain(double timeout);
  /// Returns when no step is under way; none begins until resume(), which undoes drain() too.
  void pause();
  void resume();
  /// Ends both sides; wakes everybody. Idempotent.
  void close() noexcept;

  // Loop side.

  /// Moves out all commands, sleeping up to `patience` (none: for ever) until there is one, or the state is new to the
  /// loop. `commands` comes empty.
  MailboxState take(std::vector<Command>& commands, std::optional<std::chrono::duration<double>> patience);
  /// Appends the outputs and events (both left empty) and replaces the counters. Events for which there is no memory
  /// are forgotten, as those that nobody takes. `begun`: how many requests wait no more.
  void publish(News& outputs, std::vector<CacheEvent>& events, const EngineStats& stats, std::uint64_t begun) noexcept;
  /// The engine cannot go on. Takes the last outputs; from now on every call of the caller side throws `reason`.
  void poison(const std::string& reason, News outputs) noexcept;

  /// Wakes the loop, from any thread: something that it looks after has news.
  void nudge() noexcept;

  /// The mailbox is closed: tells the takers of all queues.
  void farewell() noexcept;

  /// Seconds since the mailbox was made: the engine's clock.
  double now() const noexcept;

 private:
  using Clock = std::chrono::steady_clock;
  using Queue = std::shared_ptr<OutputQueue>;
  enum class State { open, closed, poisoned };
  /// What is kept of a request until its last output is taken.
  struct Open {
    std::uint64_t bytes = 0;
    bool aborted = false;
    bool ended = false;  // its last output was published
    std::string name;    // the caller's; empty: none
    Queue queue;
    Unread unread;
  };
  using Requests = std::unordered_map<std::uint64_t, Open>;
  static Clock::time_point deadline(double timeout);
  void require_open() const;
  const Queue& queue_of(QueueId id) const;
  void check_room(const std::vector<SubmitCommand>& commands, std::uint64_t bytes) const;
  Open open_of(const SubmitCommand& command) const;
  void forget(Requests::iterator request) noexcept;
  void forget_events() noexcept;
  Queue deliver(News& outputs, News& dropped) noexcept;
  static void chain(Queue& first, const Queue& queue) noexcept;
  static void tell(Queue first) noexcept;

  const Clock::time_point start_ = Clock::now();
  const MailboxLimits limits_;
  mutable std::mutex mutex_;
  std::condition_variable commands_ready_, resting_changed_, ended_, events_ready_;
  State state_ = State::open;
  std::string reason_;  // of the poisoning
  struct Phase {
    bool draining = false, paused = false;
    bool resting = false;  // the loop knows that it is paused
    bool orphans = false;  // as in MailboxState
    bool nudged = false;   // since the loop last looked
  } phase_;
  struct Counts {
    std::uint64_t ids = 0, queues = 0;  // given out
    std::uint64_t open = 0;             // submitted, last output not yet published
    std::uint64_t waiting = 0;          // of them: not begun
    std::uint64_t held = 0;             // of request_memory: the sum of open_
    mutable std::uint64_t refused = 0;  // by max_waiting
  } count_;
  std::vector<Command> commands_;
  std::vector<CacheEvent> events_;
  Requests open_;
  std::unordered_map<std::string, std::uint64_t> names_;
  std::unordered_map<std::uint64_t, Queue> queues_;  // 0: the engine's own
  EngineStats stats_;
};

}  // namespace pagedcore
