// The side of the mailbox that the engine's thread sees.
#include <algorithm>
#include <iterator>
#include <new>
#include <utility>

#include "engine/mailbox.hpp"

namespace pagedcore {

MailboxState Mailbox::take(std::vector<Command>& commands, std::optional<std::chrono::duration<double>> patience) {
  std::unique_lock lock(mutex_);
  const auto called = [&] {
    return !commands_.empty() || phase_.orphans || phase_.nudged || phase_.resting != phase_.paused ||
           state_ != State::open;
  };
  if (patience) {
    commands_ready_.wait_for(lock, *patience, called);
  } else {
    commands_ready_.wait(lock, called);
  }
  commands.swap(commands_);
  const bool rests = phase_.paused && !phase_.resting;
  phase_.resting = phase_.paused;
  phase_.nudged = false;
  const MailboxState state{
      .open = state_ == State::open, .paused = phase_.paused, .orphans = std::exchange(phase_.orphans, false)};
  lock.unlock();
  if (rests) resting_changed_.notify_all();
  return state;
}

void Mailbox::nudge() noexcept {
  {
    const std::lock_guard lock(mutex_);
    phase_.nudged = true;
  }
  commands_ready_.notify_one();
}

/// Nobody comes for them, or there is no room: all that can be said is that there were some.
void Mailbox::forget_events() noexcept {
  events_.clear();
  if (limits_.most_events > 0)
    events_.push_back({.kind = CacheEventKind::cleared});  // there is room: the constructor's
}

/// Moves each output to its request's queue, or, where that is closed, to `dropped`. Returns the queues as a chain.
Mailbox::Queue Mailbox::deliver(News& outputs, News& dropped) noexcept {
  Queue first;
  while (!outputs.empty()) {
    const auto output = outputs.begin();
    const auto open = open_.find(raw(output->request));
    const Queue& queue = open->second.queue;
    if (output->last) {
      open->second.ended = true;
      --count_.open;
    }
    if (queue->closed) {
      const bool last = output->last;
      dropped.splice(dropped.end(), outputs, output);
      if (last) forget(open);
      continue;
    }
    chain(first, queue);
    queue->put(outputs, output, open->second.unread);
  }
  if (count_.open == 0) ended_.notify_all();
  return first;
}

/// Puts a queue that has news at the head of a chain, once.
void Mailbox::chain(Queue& first, const Queue& queue) noexcept {
  if (std::exchange(queue->has_news, true)) return;
  queue->next_news = std::exchange(first, queue);
  queue->raise();
}

/// Wakes those who wait for the queues of a chain. Without the mutex, which they want, and a callback too.
void Mailbox::tell(Queue first) noexcept {
  while (first) {
    first->ready.notify_all();
    first->call_back();
    first->has_news = false;
    first = std::exchange(first->next_news, nullptr);
  }
}

void Mailbox::publish(News& outputs, std::vector<CacheEvent>& events, const EngineStats& stats,
                      std::uint64_t begun) noexcept {
  News dropped;  // destroyed when the mutex is free again
  Queue told;
  {
    const std::lock_guard lock(mutex_);
    stats_ = stats;
    count_.waiting -= begun;
    if (state_ != State::open) return;
    const bool forgets = !events.empty() && events.front().kind == CacheEventKind::cleared;
    if (forgets) events_.clear();
    try {
      events_.reserve(events_.size() + events.size());
      std::move(events.begin(), events.end(), std::back_inserter(events_));
      if (events_.size() > limits_.most_events) forget_events();
    } catch (const std::bad_alloc&) {
      forget_events();
    }
    if (!events_.empty()) events_ready_.notify_all();
    events.clear();
    told = deliver(outputs, dropped);
  }
  tell(std::move(told));
}

void Mailbox::poison(const std::string& reason, News outputs) noexcept {
  std::vector<Command> commands;  // came after the failure
  News dropped;
  Queue told;
  {
    const std::lock_guard lock(mutex_);
    if (state_ != State::open) return;
    state_ = State::poisoned;
    try {
      reason_ = reason;
    } catch (const std::bad_alloc&) {
      reason_ = kNoMemory;
    }
    commands.swap(commands_);
    for (Command& command : commands) {
      auto* submit = std::get_if<SubmitCommand>(&command);
      if (submit == nullptr) continue;
      RequestState& request = *submit->request;
      request.error.swap(reason_);
      for (std::uint32_t i = 0; i < request.samples.size(); ++i)
        finish_sample(request, i, FinishReason::error, now(), outputs);
      request.error.swap(reason_);
    }
    told = deliver(outputs, dropped);
    for (auto& [id, queue] : queues_) chain(told, queue);
  }
  resting_changed_.notify_all();
  ended_.notify_all();
  events_ready_.notify_all();
  tell(std::move(told));
}

void Mailbox::farewell() noexcept {
  Queue told;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [id, queue] : queues_) chain(told, queue);
  }
  tell(std::move(told));
}

}  // namespace pagedcore
