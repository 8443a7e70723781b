#include "engine/mailbox.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <new>
#include <utility>

#include "base/grow_capacity.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

void Mailbox::require_open() const {
  if (state_ == State::closed) throw Aborted("the engine is closed; create another one");
  if (state_ == State::poisoned) throw Aborted("the engine has failed and serves no more: " + reason_);
}

std::vector<RequestId> Mailbox::submit(std::vector<SubmitCommand> commands) {
  std::vector<RequestId> ids;
  ids.reserve(commands.size());
  std::uint64_t bytes = 0;
  for (const SubmitCommand& command : commands) bytes += command.request->bytes;
  std::unique_lock lock(mutex_);
  require_open();
  if (bytes > request_memory_ - held_) {
    throw OutOfMemory(str(commands.size() == 1 ? "the request" : "the requests", " may come to need ", bytes,
                          " bytes of host memory, but of request_memory = ", request_memory_, " ", held_,
                          " are for requests that run, wait, or have outputs that nobody has taken; submit ",
                          commands.size() == 1 ? "it" : "fewer, or them", " when others have ended, or raise ",
                          "request_memory"));
  }
  grow_capacity(commands_, commands_.size() + commands.size());
  try {
    for (SubmitCommand& command : commands) {
      ids.push_back(RequestId{last_id_ + 1 + ids.size()});
      open_.emplace(raw(ids.back()), Open{command.request->bytes});
    }
  } catch (...) {
    for (const RequestId id : ids) open_.erase(raw(id));
    throw;
  }
  const double arrival = now();
  for (std::size_t i = 0; i < commands.size(); ++i) {  // nothing throws any more
    commands[i].scheduling.id = commands[i].request->id = ids[i];
    commands[i].scheduling.arrival = arrival;
    commands_.emplace_back(std::move(commands[i]));
  }
  held_ += bytes;
  last_id_ += ids.size();
  open_requests_ += ids.size();
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

std::vector<EngineOutput> Mailbox::wait(double timeout) {
  constexpr double kYear = 3.2e7;  // seconds; keeps the arithmetic of the deadline finite
  if (std::isnan(timeout)) throw InvalidArgument("timeout = nan is no number of seconds; 0 polls");
  const double seconds = timeout > 0.0 ? std::min(timeout, kYear) : 0.0;
  const auto deadline =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  News emptied;  // destroyed when the mutex is free again
  std::unique_lock lock(mutex_);
  outputs_ready_.wait_until(lock, deadline, [&] { return !outputs_.empty() || state_ != State::open; });
  if (outputs_.empty()) require_open();
  std::vector<EngineOutput> taken;
  for (std::size_t count = outputs_.size(); count > 0; count /= 2) {
    try {
      taken.reserve(count);
      break;
    } catch (const std::bad_alloc&) {
      if (count == 1) throw;
    }
  }
  while (taken.size() < taken.capacity() && !outputs_.empty()) {
    taken.push_back(std::move(outputs_.front()));
    emptied.splice(emptied.end(), outputs_, outputs_.begin());
    if (!taken.back().last) continue;
    const auto open = open_.find(raw(taken.back().request));
    held_ -= open->second.bytes;
    open_.erase(open);
  }
  lock.unlock();
  return taken;
}

bool Mailbox::busy() const {
  const std::lock_guard lock(mutex_);
  if (!outputs_.empty()) return true;
  require_open();
  return open_requests_ > 0;
}

EngineStats Mailbox::stats() const {
  const std::lock_guard lock(mutex_);
  require_open();
  EngineStats stats = stats_;
  for (const Command& command : commands_) stats.scheduler.waiting += std::holds_alternative<SubmitCommand>(command);
  return stats;
}

void Mailbox::close() noexcept {
  std::vector<Command> commands;  // destroyed after the mutex is released
  News outputs;
  {
    const std::lock_guard lock(mutex_);
    state_ = State::closed;
    commands.swap(commands_);
    outputs.swap(outputs_);
  }
  commands_ready_.notify_all();
  outputs_ready_.notify_all();
}

bool Mailbox::take(std::vector<Command>& commands, std::optional<std::chrono::milliseconds> patience) {
  std::unique_lock lock(mutex_);
  const auto called = [&] { return !commands_.empty() || state_ != State::open; };
  if (patience) {
    commands_ready_.wait_for(lock, *patience, called);
  } else {
    commands_ready_.wait(lock, called);
  }
  commands.swap(commands_);
  return state_ == State::open;
}

std::vector<CacheEvent> Mailbox::take_events() {
  const std::lock_guard lock(mutex_);
  require_open();
  std::vector<CacheEvent> room;
  if (most_events_ > 0) room.reserve(1);  // for forget_events()
  room.swap(events_);
  return room;
}

/// Nobody comes for them, or there is no room: all that can be said is that there were some.
void Mailbox::forget_events() noexcept {
  events_.clear();
  if (most_events_ > 0) events_.push_back({.kind = CacheEventKind::cleared});  // there is room: the constructor's
}

void Mailbox::publish(News& outputs, std::vector<CacheEvent>& events, const EngineStats& stats) noexcept {
  const auto ended = std::count_if(outputs.begin(), outputs.end(), [](const EngineOutput& o) { return o.last; });
  const bool news = !outputs.empty();
  {
    const std::lock_guard lock(mutex_);
    stats_ = stats;
    if (state_ != State::open) return;
    const bool forgets = !events.empty() && events.front().kind == CacheEventKind::cleared;
    if (forgets) events_.clear();
    try {
      events_.reserve(events_.size() + events.size());
      std::move(events.begin(), events.end(), std::back_inserter(events_));
      if (events_.size() > most_events_) forget_events();
    } catch (const std::bad_alloc&) {
      forget_events();
    }
    events.clear();
    outputs_.splice(outputs_.end(), outputs);
    open_requests_ -= static_cast<std::uint64_t>(ended);
  }
  if (news) outputs_ready_.notify_all();
}

void Mailbox::poison(const std::string& reason, News outputs) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (state_ == State::open) {
      state_ = State::poisoned;
      try {
        reason_ = reason;
      } catch (const std::bad_alloc&) {
        reason_ = kNoMemory;
      }
      for (Command& command : commands_) {  // came after the failure
        auto* submit = std::get_if<SubmitCommand>(&command);
        if (submit == nullptr) continue;
        RequestState& request = *submit->request;
        request.error.swap(reason_);
        for (std::uint32_t i = 0; i < request.samples.size(); ++i)
          finish_sample(request, i, FinishReason::error, now(), outputs);
        request.error.swap(reason_);
      }
      outputs_.splice(outputs_.end(), outputs);
    }
  }
  outputs_ready_.notify_all();
}

double Mailbox::now() const noexcept { return std::chrono::duration<double>(Clock::now() - start_).count(); }

}  // namespace pagedcore
