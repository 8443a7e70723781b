#include "engine/thread_ranks.hpp"

#include <algorithm>
#include <atomic>
#include <system_error>

#include "base/exception_memory.hpp"
#include "base/signals_blocked.hpp"
#include "base/text.hpp"
#include "comm/threads.hpp"
#include "pagedcore/devices.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

// A thread does not die alone: what throws tells the others. A process that is stopped for a while goes on.
constexpr std::chrono::hours kDeadline{24};
// About as long as ranks are apart within a layer; a sleeper would take as long to wake.
constexpr std::chrono::microseconds kSpin{200};

}  // namespace

struct ThreadRanks::Rank {
  Rank(std::size_t index, const RankParts& parts)
      : number(index),
        backend(parts.backend),
        model(parts.model),
        runner(parts.backend, parts.model, parts.kv, parts.swap) {}
  const std::size_t number;
  Backend& backend;
  Model& model;
  RankRunner runner;
  std::thread thread;
  std::uint64_t served = 0;    // the last step that it has begun; guarded by mutex_
  HostWork* helped = nullptr;  // the last work that it has taken part in; likewise
};

/// Indices that threads of several ranks claim.
struct ThreadRanks::HostWork {
  std::int64_t count;
  const std::function<void(std::int64_t)>& body;
  std::atomic<std::int64_t> next{0};
  std::mutex mutex{};
  std::int64_t first_failure = count;
  std::exception_ptr failure{};

  void claim() noexcept {
    for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      try {
        body(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (i >= first_failure) continue;
        first_failure = i;
        failure = std::current_exception();
      }
    }
  }
};

ThreadRanks::ThreadRanks(const std::vector<RankParts>& parts) : first_model_(parts[0].model) {
  for (std::size_t rank = 1; rank < parts.size(); ++rank) ranks_.push_back(std::make_unique<Rank>(rank, parts[rank]));
  connect();
  try {
    const SignalsBlocked guard;
    for (auto& rank : ranks_) rank->thread = std::thread([this, &own = *rank] { serve(own); });
  } catch (const std::system_error& e) {
    stop();
    throw OutOfMemory(str("no thread for rank ", ranks_.size(), " of tensor_parallel = ", parts.size(),
                          " could be started (", e.what(), "); ask for fewer ranks, or raise the limit on threads"));
  }
}

ThreadRanks::~ThreadRanks() { stop(); }

void ThreadRanks::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  for (auto& rank : ranks_)
    if (rank->thread.joinable()) rank->thread.join();
}

/// Nobody speaks.
void ThreadRanks::connect() {
  const int ranks = static_cast<int>(ranks_.size()) + 1;
  group_ = comm::make_thread_group(ranks, {kDeadline, ranks <= usable_cpus() ? kSpin : std::chrono::microseconds{0}});
  first_model_.speak_through(*group_[0]);
  for (auto& rank : ranks_) rank->model.speak_through(*group_[rank->number]);
  broken_ = false;
}

void ThreadRanks::serve(Rank& rank) noexcept {
  take_exception_memory();
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [&] {
      return stopping_ || rank.served != step_number_ || (host_work_ != nullptr && rank.helped != host_work_);
    });
    if (stopping_) return;
    if (rank.served != step_number_) {
      rank.served = step_number_;
      lock.unlock();
      run_step(rank);
      lock.lock();
      --running_;
    } else {
      HostWork& work = *host_work_;
      rank.helped = host_work_;
      ++helping_;
      lock.unlock();
      rank.backend.host_parallel(work.count, [&](std::int64_t) { work.claim(); });
      lock.lock();
      --helping_;
    }
    idle_.notify_all();
  }
}

void ThreadRanks::run_step(Rank& rank) noexcept {
  try {
    rank.runner.run(
        *step_, [](std::int64_t, const Tensor&) {}, [](std::int64_t, const Tensor&) {});
    rank.backend.synchronize();
    return;
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!failed_) {  // what follows at the other ranks is that
      failed_ = true;
      failure_ = std::current_exception();
    }
    broken_ = true;
  }
  group_[rank.number]->abort("a rank has given up its step");
}

void ThreadRanks::start(const RankStep& step) {
  if (broken_) connect();
  {
    const std::lock_guard lock(mutex_);
    step_ = &step;
    failed_ = false;
    failure_ = nullptr;
    running_ = ranks_.size();
    ++step_number_;
  }
  work_.notify_all();
}

void ThreadRanks::wait_idle(std::unique_lock<std::mutex>& lock) {
  idle_.wait(lock, [&] { return running_ == 0; });
}

void ThreadRanks::finish(std::span<std::uint8_t> lost) {
  std::unique_lock lock(mutex_);
  wait_idle(lock);
  if (failure_ != nullptr) std::rethrow_exception(failure_);
  for (const auto& rank : ranks_) {
    const auto theirs = rank->runner.lost();
    for (std::size_t i = 0; i < std::min(lost.size(), theirs.size()); ++i) lost[i] |= theirs[i];
  }
}

std::exception_ptr ThreadRanks::give_up(const char* why) noexcept {
  std::unique_lock lock(mutex_);
  failed_ = true;
  broken_ = true;
  if (running_ > 0) {
    lock.unlock();
    group_[0]->abort(why);
    lock.lock();
    wait_idle(lock);
  }
  return std::exchange(failure_, nullptr);
}

void ThreadRanks::add_to(SwapCounters& counters) const {
  for (const auto& rank : ranks_) {
    if (rank->runner.swap_store() == nullptr) continue;
    const SwapCounters& theirs = rank->runner.swap_store()->counters();
    counters.bytes_out += theirs.bytes_out;
    counters.bytes_in += theirs.bytes_in;
    counters.file_bytes_out += theirs.file_bytes_out;
    counters.file_bytes_in += theirs.file_bytes_in;
    counters.errors += theirs.errors;
  }
}

void ThreadRanks::host_parallel(Backend& backend, std::int64_t count, const std::function<void(std::int64_t)>& body) {
  if (count <= 1) return backend.host_parallel(count, body);
  HostWork work{count, body};
  {
    const std::lock_guard lock(mutex_);
    host_work_ = &work;
    for (auto& rank : ranks_) rank->helped = nullptr;
  }
  work_.notify_all();
  backend.host_parallel(count, [&](std::int64_t) { work.claim(); });
  {
    std::unique_lock lock(mutex_);
    host_work_ = nullptr;
    idle_.wait(lock, [&] { return helping_ == 0; });
  }
  if (work.failure) std::rethrow_exception(work.failure);
}

}  // namespace pagedcore
