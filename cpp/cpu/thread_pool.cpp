#include "cpu/thread_pool.hpp"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "base/exception_memory.hpp"
#include "base/signals_blocked.hpp"
#include "base/text.hpp"
#include "base/wait_point.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/error.hpp"

// How an operation runs. The caller writes the job, opens the gate and bumps the epoch. A worker that notices enters
// the gate, takes part and leaves it. Once the caller finds no index unclaimed it shuts the gate and waits for those
// inside only: a worker that the operating system had put aside is not waited for when there is nothing left for it to
// do. The job may be rewritten once nobody is inside.

namespace pagedcore::cpu {
namespace {

// Long enough to bridge the serial stretch between two operations of a step, short against a scheduler's time slice.
constexpr std::chrono::microseconds kSpin{30};

}  // namespace

struct ThreadPool::Impl {
  explicit Impl(int threads_in_all)
      : threads(threads_in_all),
        spin_limit(static_cast<unsigned>(threads_in_all) <= std::thread::hardware_concurrency()
                       ? kSpin
                       : std::chrono::microseconds{0}),  // more threads than CPUs: spinning would hold up the others
        owner(getpid()) {}

  // Gate: bit 31 open; the other bits count the workers inside.
  static constexpr std::uint32_t kOpen = 1u << 31;

  const int threads;
  const std::chrono::microseconds spin_limit;
  const pid_t owner;
  std::vector<std::thread> workers;

  // The job: written by the caller while nobody is inside, read by workers inside.
  Task task = nullptr;
  const void* body = nullptr;
  std::int64_t count = 0;
  std::uint32_t job_epoch = 0;
  bool stop = false;

  alignas(64) std::atomic<std::uint32_t> epoch{0};
  alignas(64) std::atomic<std::uint32_t> gate{0};
  alignas(64) std::atomic<std::int64_t> next{0};
  alignas(64) WaitPoint work_available;
  alignas(64) WaitPoint work_done;

  void open() {
    next.store(0, std::memory_order_relaxed);
    job_epoch = epoch.load(std::memory_order_relaxed) + 1;
    gate.store(kOpen);
    epoch.store(job_epoch);
    work_available.wake();
  }

  bool enter() {
    std::uint32_t now = gate.load(std::memory_order_relaxed);
    while ((now & kOpen) != 0)
      if (gate.compare_exchange_weak(now, now + 1)) return true;
    return false;
  }

  void leave() {
    gate.fetch_sub(1);
    work_done.wake();
  }

  void claim_indices(int worker) {
    for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(body, i, worker);
  }

  /// Shuts the gate and waits until nobody is inside.
  void finish() {
    gate.fetch_and(~kOpen);
    work_done.wait(spin_limit, [&] { return gate.load() == 0; });
  }

  void work(int worker) {
    take_exception_memory();
    for (std::uint32_t seen = 0;;) {
      work_available.wait(spin_limit, [&] { return epoch.load() != seen; });
      seen = epoch.load();
      if (!enter()) continue;
      seen = job_epoch;  // perhaps a later job than the one that woke us
      const bool last = stop;
      if (!last) claim_indices(worker);
      leave();
      if (last) return;
    }
  }

  void stop_and_join() {
    stop = true;
    open();
    for (std::thread& t : workers) t.join();
    workers.clear();
  }
};

ThreadPool::ThreadPool(int threads) {
  if (threads < 1 || threads > kMostThreads)
    throw InvalidArgument(str("a thread pool of ", threads, " threads; ask for 1 to ", kMostThreads));
  int started = 1;
  try {
    impl_ = std::make_unique<Impl>(threads);
    impl_->workers.reserve(static_cast<std::size_t>(threads - 1));
    const SignalsBlocked guard;
    for (; started < threads; ++started)
      impl_->workers.emplace_back([impl = impl_.get(), worker = started] { impl->work(worker); });
  } catch (const std::exception& e) {
    if (impl_ != nullptr) impl_->stop_and_join();
    throw OutOfMemory(str("only ", started, " of ", threads, " threads could be started (", e.what(),
                          "); ask for fewer, or raise the limit on threads or memory"));
  }
}

ThreadPool::~ThreadPool() {
  if (getpid() == impl_->owner)
    impl_->stop_and_join();
  else
    static_cast<void>(impl_.release());  // a forked child has the memory but not the threads: nothing to join, so leak
}

int ThreadPool::threads() const noexcept { return impl_->threads; }

void ThreadPool::for_each_rethrowing(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  if (count <= 0) return;
  std::mutex mutex;
  std::int64_t first_failure = count;
  std::exception_ptr failure;
  for_each(count, [&](std::int64_t i, int) {
    try {
      body(i);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (i < first_failure) {
        first_failure = i;
        failure = std::current_exception();
      }
    }
  });
  if (failure) std::rethrow_exception(failure);
}

void ThreadPool::run(std::int64_t count, Task task, const void* body) {
  Impl& p = *impl_;
  if (getpid() != p.owner)
    throw Aborted(
        "a thread pool made before fork() is used in the child, where its threads do not exist; make another");
  if (p.threads == 1 || count == 0 || count == 1) {
    for (std::int64_t i = 0; i < count; ++i) task(body, i, 0);
    return;
  }
  p.task = task;
  p.body = body;
  p.count = count;
  p.open();
  p.claim_indices(0);
  p.finish();
}

}  // namespace pagedcore::cpu
