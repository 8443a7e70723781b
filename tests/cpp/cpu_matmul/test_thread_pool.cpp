#include <doctest/doctest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "cpu/thread_pool.hpp"
#include "pagedcore/error.hpp"

using pagedcore::cpu::ThreadPool;

namespace {
/// body(worker) once on every worker: each waits in its index until all have one.
template <class Body>
void on_each(ThreadPool& pool, const Body& body) {
  std::atomic<int> arrived{0};
  pool.for_each(pool.threads(), [&](std::int64_t, int worker) {
    for (arrived.fetch_add(1); arrived.load() < pool.threads();) std::this_thread::yield();
    body(worker);
  });
}
}  // namespace

TEST_CASE("for_each runs every index once, on a worker of the pool") {
  std::mt19937 random(1);
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (const std::int64_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(count));
      std::atomic<bool> worker_in_range{true};
      pool.for_each(count, [&](std::int64_t i, int worker) {
        runs[static_cast<std::size_t>(i)].fetch_add(1);
        if (worker < 0 || worker >= threads) worker_in_range = false;
      });
      for (const auto& r : runs) CHECK(r.load() == 1);
      CHECK(worker_in_range);
    }
  }
}

TEST_CASE("all workers take part, on threads of their own, the caller being worker 0") {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 50; ++round) {
      std::vector<std::thread::id> ids(static_cast<std::size_t>(threads));
      std::vector<int> runs(static_cast<std::size_t>(threads), 0);
      on_each(pool, [&](int worker) {
        ids[static_cast<std::size_t>(worker)] = std::this_thread::get_id();
        ++runs[static_cast<std::size_t>(worker)];
      });
      CHECK(ids[0] == std::this_thread::get_id());
      for (int i = 0; i < threads; ++i) {
        CHECK(runs[static_cast<std::size_t>(i)] == 1);
        for (int j = 0; j < i; ++j) CHECK(ids[static_cast<std::size_t>(i)] != ids[static_cast<std::size_t>(j)]);
      }
    }
  }
}

TEST_CASE("operations back to back and after sleeps: what workers wrote is visible when the call returns") {
  ThreadPool pool(4);
  std::mt19937 random(2);
  std::int64_t expected = 0, sum = 0;
  std::vector<std::int64_t> partial(4);
  for (int round = 0; round < 3000; ++round) {
    const std::int64_t count = static_cast<std::int64_t>(random() % 40);
    partial.assign(4, 0);
    pool.for_each(count, [&](std::int64_t i, int worker) { partial[static_cast<std::size_t>(worker)] += i; });
    sum += std::accumulate(partial.begin(), partial.end(), std::int64_t{0});
    expected += count * (count - 1) / 2;
    if (round % 3 == 0) {
      partial.assign(4, 0);
      on_each(pool, [&](int worker) { partial[static_cast<std::size_t>(worker)] = worker; });
      sum += std::accumulate(partial.begin(), partial.end(), std::int64_t{0});
      expected += 6;
    }
    if (round % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // let workers fall asleep
  }
  CHECK(sum == expected);
}

// rule: cpu.idle-costs-nothing
TEST_CASE("an idle pool costs no CPU") {
  ThreadPool pool(4);
  on_each(pool, [](int) {});
  const auto cpu_seconds = [] {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  // Workers spin for a moment before they sleep, which may come late where others keep the cores busy.
  double spent = 1.0;
  for (int attempt = 0; attempt < 20 && spent >= 0.002; ++attempt) {
    const double before = cpu_seconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    spent = cpu_seconds() - before;
  }
  CHECK(spent < 0.002);
}

// rule: cpu.workers-take-no-signals, base.our-threads-take-no-signals
TEST_CASE("workers block signals, the caller's mask is untouched") {
  sigset_t before, after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  ThreadPool pool(3);
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  for (const int s : {SIGINT, SIGTERM, SIGUSR1, SIGCHLD}) CHECK(sigismember(&before, s) == sigismember(&after, s));
  std::vector<int> blocked(3, -1);
  on_each(pool, [&](int worker) {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    blocked[static_cast<std::size_t>(worker)] = sigismember(&mask, SIGINT) + sigismember(&mask, SIGUSR1);
  });
  CHECK(blocked[1] == 2);
  CHECK(blocked[2] == 2);
}

TEST_CASE("pools come and go") {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool(1 + i % 4);
    if (i % 2 == 0) pool.for_each(10, [](std::int64_t, int) {});
  }
}

TEST_CASE("a pool of no threads, or of too many, is refused") {
  CHECK_THROWS_AS(ThreadPool(0), pagedcore::InvalidArgument);
  CHECK_THROWS_AS(ThreadPool(-3), pagedcore::InvalidArgument);
  CHECK_THROWS_AS(ThreadPool(1 << 20), pagedcore::InvalidArgument);
}

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)  // their runtimes need threads and address space

namespace {
/// What a forked child returns from `body`; -1 when it hung or died.
template <class Body>
int in_child(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(10);
    _exit(body());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
}  // namespace

// rule: cpu.refuses-after-fork
TEST_CASE("in a forked child a pool refuses work and is destroyed without hanging") {
  auto pool = std::make_unique<ThreadPool>(4);
  on_each(*pool, [](int) {});
  const int result = in_child([&] {
    try {
      on_each(*pool, [](int) {});
      return 1;
    } catch (const pagedcore::Aborted&) {
    }
    pool.reset();
    ThreadPool fresh(2);  // the child may make its own
    int ran[2] = {0, 0};
    on_each(fresh, [&](int worker) { ran[worker] = 1; });
    return ran[0] + ran[1] == 2 ? 42 : 2;
  });
  CHECK(result == 42);
  on_each(*pool, [](int) {});  // the parent's still works
}

// rule: cpu.failure-changes-nothing
TEST_CASE("when not all threads can be started, OutOfMemory, and none is left behind") {
  const int result = in_child([] {
    // Address space for a few stacks only (8 MiB each by default).
    rlimit limit{};
    getrlimit(RLIMIT_STACK, &limit);
    if (limit.rlim_cur == RLIM_INFINITY) return 42;  // glibc then uses 2 MiB stacks: the arithmetic below is off
    const rlimit space{rlim_t{1} << 30, rlim_t{1} << 30};
    setrlimit(RLIMIT_AS, &space);
    try {
      ThreadPool pool(4096);
      return 1;
    } catch (const pagedcore::OutOfMemory&) {
    }
    ThreadPool small(2);
    int ran = 0;
    small.for_each(1, [&](std::int64_t, int) { ran = 1; });
    return ran == 1 ? 42 : 2;
  });
  CHECK(result == 42);
}

#endif
