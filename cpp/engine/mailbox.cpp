// The side of the mailbox that callers see.
#include "engine/mailbox.hpp"

#include <algorithm>
#include <cmath>
#include <new>
#include <utility>

#include "base/grow_capacity.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

Mailbox::Mailbox(const MailboxLimits& limits) : limits_(limits) {
  if (limits.most_events > 0) events_.reserve(1);  // to say that events were lost
  queues_.emplace(0, std::make_shared<OutputQueue>());
}

void Mailbox::require_open() const {
  if (state_ == State::closed) throw Aborted("the engine is closed; create another one");
  if (state_ == State::poisoned) throw Aborted("the engine has failed and serves no more: " + reason_);
}

const Mailbox::Queue& Mailbox::queue_of(QueueId id) const {
  const auto found = queues_.find(raw(id));
  if (found == queues_.end())
    throw InvalidArgument(str("output queue ", raw(id), " is closed, or never was: open_queue() gives one"));
  return found->second;
}

Mailbox::Clock::time_point Mailbox::deadline(double timeout) {
  constexpr double kYear = 3.2e7;  // seconds; keeps the arithmetic finite
  if (std::isnan(timeout)) throw InvalidArgument("timeout = nan is no number of seconds; 0 polls");
  const double seconds = timeout > 0.0 ? std::min(timeout, kYear) : 0.0;
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

void Mailbox::check_room(const std::vector<SubmitCommand>& commands, std::uint64_t bytes) const {
  const std::size_t count = commands.size();
  if (phase_.draining) throw Aborted("the engine drains: it finishes what it has and takes no more, until resume()");
  if (limits_.max_waiting > 0 && count_.waiting + count > limits_.max_waiting) {
    count_.refused += count;
    throw Overloaded(str(count_.waiting, count_.waiting == 1 ? " request waits" : " requests wait", " to begin, and ",
                         count, " more would exceed max_waiting = ", limits_.max_waiting,
                         "; submit again when some have begun, or raise max_waiting"));
  }
  if (bytes > limits_.request_memory - count_.held) {
    throw OutOfMemory(str(count == 1 ? "the request" : "the requests", " may come to need ", bytes,
                          " bytes of host memory, but of request_memory = ", limits_.request_memory, " ", count_.held,
                          " are for requests that run, wait, or have outputs that nobody has taken; submit ",
                          count == 1 ? "it" : "fewer, or them", " when others have ended, or raise ",
                          "request_memory"));
  }
}

Mailbox::Open Mailbox::open_of(const SubmitCommand& command) const {
  const EngineRequest& request = command.request->request;
  Open open;
  open.bytes = command.request->bytes;
  open.name = request.options.request_id;
  open.queue = queue_of(request.queue);
  if (request.stream) open.unread.resize(command.request->samples.size());
  return open;
}

std::vector<RequestId> Mailbox::submit(std::vector<SubmitCommand> commands) {
  std::vector<RequestId> ids;
  ids.reserve(commands.size());
  std::uint64_t bytes = 0;
  for (const SubmitCommand& command : commands) bytes += command.request->bytes;
  std::unique_lock lock(mutex_);
  require_open();
  check_room(commands, bytes);
  grow_capacity(commands_, commands_.size() + commands.size());
  try {
    for (const SubmitCommand& command : commands) {
      ids.push_back(RequestId{count_.ids + 1 + ids.size()});
      Open& open = open_.emplace(raw(ids.back()), Open{}).first->second;
      open = open_of(command);
      if (open.name.empty()) continue;
      const auto [named, is_new] = names_.emplace(open.name, raw(ids.back()));
      if (is_new) continue;
      const std::string name = std::exchange(open.name, {});
      throw InvalidArgument(str(commands.size() > 1 ? str("request ", ids.size() - 1, ": ") : "", "request_id '", name,
                                "' is in use: a name is free again when the last output of its request was taken"));
    }
  } catch (...) {
    for (const RequestId id : ids) {
      const auto open = open_.find(raw(id));
      if (open == open_.end()) continue;
      if (!open->second.name.empty()) names_.erase(open->second.name);
      open_.erase(open);
    }
    throw;
  }
  const double arrival = now();
  for (std::size_t i = 0; i < commands.size(); ++i) {  // nothing throws any more
    RequestState& request = *commands[i].request;
    commands[i].scheduling.id = request.id = ids[i];
    commands[i].scheduling.arrival = request.times.queued = arrival;
    if (request.request.options.deadline > 0.0) request.deadline = arrival + request.request.options.deadline;
    request.queue = open_.find(raw(ids[i]))->second.queue;
    commands_.emplace_back(std::move(commands[i]));
  }
  count_.held += bytes;
  count_.ids += ids.size();
  count_.open += ids.size();
  count_.waiting += ids.size();
  lock.unlock();
  commands_ready_.notify_one();
  return ids;
}

void Mailbox::post(Command command) {
  std::unique_lock lock(mutex_);
  require_open();
  Open* aborted = nullptr;
  if (const auto* abort = std::get_if<AbortCommand>(&command)) {
    const auto open = open_.find(raw(abort->id));
    if (open == open_.end() || open->second.aborted) return;
    aborted = &open->second;
  } else if (!commands_.empty() && commands_.back().index() == command.index()) {
    // Once is enough, and of several periods the last one counts.
    const bool replaces = std::holds_alternative<ClearPrefixCacheCommand>(command) ||
                          std::holds_alternative<ForcePreemptionCommand>(command);
    if (replaces) commands_.pop_back();
  }
  commands_.push_back(std::move(command));
  if (aborted != nullptr) aborted->aborted = true;
  lock.unlock();
  commands_ready_.notify_one();
}

std::optional<RequestId> Mailbox::named(std::string_view name) const {
  const std::string key(name);
  const std::lock_guard lock(mutex_);
  require_open();
  const auto found = names_.find(key);
  return found == names_.end() ? std::nullopt : std::optional(RequestId{found->second});
}

/// Of a request whose last output is taken, or will never be.
void Mailbox::forget(Requests::iterator request) noexcept {
  count_.held -= request->second.bytes;
  if (!request->second.name.empty()) names_.erase(request->second.name);
  open_.erase(request);
}

std::vector<EngineOutput> Mailbox::wait(double timeout, QueueId id) {
  const Clock::time_point until = deadline(timeout);
  News emptied;  // destroyed when the mutex is free again
  std::unique_lock lock(mutex_);
  const auto found = queues_.find(raw(id));
  if (found == queues_.end()) require_open();
  const Queue queue = queue_of(id);
  queue->ready.wait_until(lock, until,
                          [&] { return !queue->outputs.empty() || state_ != State::open || queue->closed; });
  if (queue->outputs.empty()) require_open();
  std::vector<EngineOutput> taken = queue->take(emptied);
  for (const EngineOutput& output : taken) {
    const auto open = open_.find(raw(output.request));
    if (output.last) {
      forget(open);
    } else if (output.sample < open->second.unread.size()) {
      open->second.unread[output.sample] = nullptr;
    }
  }
  if (queue->wake_up && queue->outputs.empty() && state_ == State::open) queue->wake_up->lower();
  lock.unlock();
  return taken;
}

QueueId Mailbox::open_queue() {
  Queue queue = std::make_shared<OutputQueue>();
  const std::lock_guard lock(mutex_);
  require_open();
  queues_.emplace(count_.queues + 1, std::move(queue));
  return QueueId{++count_.queues};
}

void Mailbox::close_queue(QueueId id) noexcept {
  if (raw(id) == 0) return;  // the engine's own
  // Destroyed when the mutex is free again.
  News dropped;
  std::unique_ptr<WakeUp> wake_up;
  Queue queue;
  {
    const std::lock_guard lock(mutex_);
    const auto found = queues_.find(raw(id));
    if (found == queues_.end()) return;
    queue = std::move(found->second);
    queues_.erase(found);
    queue->closed = true;
    queue->raise();
    queue->ready.notify_all();
    wake_up = std::move(queue->wake_up);  // requests that are to end still refer to the queue
    dropped.swap(queue->outputs);
    for (auto open = open_.begin(); open != open_.end();) {
      const auto next = std::next(open);
      if (open->second.queue == queue) open->second.unread.clear();
      if (open->second.queue == queue && open->second.ended) forget(open);
      open = next;
    }
    phase_.orphans = true;
  }
  commands_ready_.notify_one();
}

int Mailbox::output_fd(QueueId id) {
  const std::lock_guard lock(mutex_);
  require_open();
  OutputQueue& queue = *queue_of(id);
  if (!queue.wake_up) {
    queue.wake_up = std::make_unique<WakeUp>();
    if (!queue.outputs.empty()) queue.raise();
  }
  return queue.wake_up->fd();
}

void Mailbox::on_output(std::function<void()> callback, QueueId id) {
  Queue queue;
  {
    const std::lock_guard lock(mutex_);
    require_open();
    queue = queue_of(id);
  }
  bool news = false;
  const std::lock_guard lock(queue->calling);
  queue->callback = std::move(callback);
  {
    const std::lock_guard inner(mutex_);
    news = !queue->outputs.empty();
  }
  if (news && queue->callback) queue->callback();
}

bool Mailbox::busy() const {
  const std::lock_guard lock(mutex_);
  if (std::ranges::any_of(queues_, [](const auto& entry) { return !entry.second->outputs.empty(); })) return true;
  require_open();
  return count_.open > 0;
}

EngineStats Mailbox::stats() const {
  const std::lock_guard lock(mutex_);
  require_open();
  EngineStats stats = stats_;
  for (const Command& command : commands_) stats.scheduler.waiting += std::holds_alternative<SubmitCommand>(command);
  stats.requests_refused = count_.refused;
  stats.draining = phase_.draining;
  stats.paused = phase_.paused;
  return stats;
}

std::vector<RequestId> Mailbox::drain(double timeout) {
  const Clock::time_point until = deadline(timeout);
  std::unique_lock lock(mutex_);
  require_open();
  phase_.draining = true;
  ended_.wait_until(lock, until, [&] { return count_.open == 0 || state_ != State::open || !phase_.draining; });
  require_open();
  std::vector<RequestId> left;
  for (const auto& [id, open] : open_)
    if (!open.ended) left.push_back(RequestId{id});
  std::ranges::sort(left, {}, [](RequestId id) { return raw(id); });
  return left;
}

void Mailbox::pause() {
  std::unique_lock lock(mutex_);
  require_open();
  phase_.paused = true;
  commands_ready_.notify_one();
  resting_changed_.wait(lock, [&] { return phase_.resting || !phase_.paused || state_ != State::open; });
}

void Mailbox::resume() {
  {
    const std::lock_guard lock(mutex_);
    require_open();
    phase_.paused = phase_.draining = false;
  }
  commands_ready_.notify_one();
  resting_changed_.notify_all();
  ended_.notify_all();
}

void Mailbox::close() noexcept {
  std::vector<Command> commands;  // destroyed after the mutex is released
  News dropped;
  Requests open;
  {
    const std::lock_guard lock(mutex_);
    state_ = State::closed;
    commands.swap(commands_);
    open.swap(open_);
    for (auto& [id, queue] : queues_) {
      dropped.splice(dropped.end(), queue->outputs);
      queue->raise();
      queue->ready.notify_all();
    }
  }
  for (std::condition_variable* waited : {&commands_ready_, &resting_changed_, &ended_, &events_ready_})
    waited->notify_all();
}

std::vector<CacheEvent> Mailbox::take_events(double timeout) {
  const Clock::time_point until = deadline(timeout);
  std::unique_lock lock(mutex_);
  events_ready_.wait_until(lock, until, [&] { return !events_.empty() || state_ != State::open; });
  require_open();
  std::vector<CacheEvent> room;
  if (limits_.most_events > 0) room.reserve(1);  // for forget_events()
  room.swap(events_);
  return room;
}

double Mailbox::now() const noexcept { return std::chrono::duration<double>(Clock::now() - start_).count(); }

}  // namespace pagedcore
