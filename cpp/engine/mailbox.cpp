#include "engine/mailbox.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

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
  std::unique_lock lock(mutex_);
  require_open();
  const double arrival = now();
  const std::size_t before = commands_.size();
  try {
    for (SubmitCommand& command : commands) {
      ids.push_back(RequestId{last_id_ + 1 + ids.size()});
      command.scheduling.id = ids.back();
      command.scheduling.arrival = arrival;
      commands_.emplace_back(std::move(command));
    }
  } catch (...) {
    commands_.erase(commands_.begin() + static_cast<std::ptrdiff_t>(before), commands_.end());
    throw;
  }
  last_id_ += ids.size();
  open_requests_ += ids.size();
  lock.unlock();
  commands_ready_.notify_one();
  return ids;
}

void Mailbox::post(const Command& command) {
  std::unique_lock lock(mutex_);
  require_open();
  commands_.push_back(command);
  lock.unlock();
  commands_ready_.notify_one();
}

std::vector<EngineOutput> Mailbox::wait(double timeout) {
  constexpr double kYear = 3.2e7;  // seconds; keeps the arithmetic of the deadline finite
  if (std::isnan(timeout)) throw InvalidArgument("timeout = nan is no number of seconds; 0 polls");
  const double seconds = timeout > 0.0 ? std::min(timeout, kYear) : 0.0;
  const auto deadline =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  std::unique_lock lock(mutex_);
  outputs_ready_.wait_until(lock, deadline, [&] { return !outputs_.empty() || state_ != State::open; });
  if (outputs_.empty()) require_open();
  return std::exchange(outputs_, {});
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
  std::deque<Command> commands;  // destroyed after the mutex is released
  std::vector<EngineOutput> outputs;
  {
    const std::lock_guard lock(mutex_);
    state_ = State::closed;
    commands.swap(commands_);
    outputs.swap(outputs_);
  }
  commands_ready_.notify_all();
  outputs_ready_.notify_all();
}

bool Mailbox::take(std::deque<Command>& commands, std::optional<std::chrono::milliseconds> patience) {
  commands.clear();
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
  return std::exchange(events_, {});
}

void Mailbox::publish(std::vector<EngineOutput>& outputs, std::vector<CacheEvent>& events, const EngineStats& stats) {
  const auto ended = std::count_if(outputs.begin(), outputs.end(), [](const EngineOutput& o) { return o.last; });
  const bool news = !outputs.empty();
  {
    const std::lock_guard lock(mutex_);
    stats_ = stats;
    if (state_ != State::open) return;
    const bool forgets = !events.empty() && events.front().kind == CacheEventKind::cleared;
    if (forgets || events_.empty()) {
      events_.swap(events);
    } else {
      events_.reserve(events_.size() + events.size());
      std::move(events.begin(), events.end(), std::back_inserter(events_));
    }
    events.clear();
    if (events_.size() > most_events_) {  // nobody comes for them
      events_.clear();
      if (most_events_ > 0) events_.push_back({.kind = CacheEventKind::cleared});
    }
    if (outputs_.empty()) {
      outputs_.swap(outputs);
    } else {
      outputs_.reserve(outputs_.size() + outputs.size());  // may throw; moving cannot
      std::move(outputs.begin(), outputs.end(), std::back_inserter(outputs_));
    }
    open_requests_ -= static_cast<std::uint64_t>(ended);
  }
  outputs.clear();
  if (news) outputs_ready_.notify_all();
}

void Mailbox::poison(std::string reason, std::vector<EngineOutput> outputs) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (state_ == State::open) {
      state_ = State::poisoned;
      reason_ = std::move(reason);
      try {
        for (const Command& command : commands_) {  // came after the failure
          const auto* submit = std::get_if<SubmitCommand>(&command);
          if (submit == nullptr) continue;
          EngineOutput& output = outputs.emplace_back();
          output.request = submit->scheduling.id;
          output.finish = FinishReason::error;
          output.error = reason_;
          output.time = now();
          output.last = true;
        }
        outputs_.reserve(outputs_.size() + outputs.size());
        std::move(outputs.begin(), outputs.end(), std::back_inserter(outputs_));
      } catch (...) {
        // Out of memory for the news of it; the callers learn from the throw of their next call.
      }
    }
  }
  outputs_ready_.notify_all();
}

double Mailbox::now() const noexcept { return std::chrono::duration<double>(Clock::now() - start_).count(); }

}  // namespace pagedcore
