// A guest in its process: closing, forking, idling, signals.
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <string>
#include <thread>

#include "fake_executor.hpp"
#include "process.hpp"

using namespace fake;
using namespace process;
using Clock = std::chrono::steady_clock;

namespace {

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

// rule: engine.close-is-final
TEST_CASE("close ends waits in other threads at once, may be repeated, from any thread") {
  for (int round = 0; round < 20; ++round) {
    const auto loop = make_loop();
    std::atomic<int> ended{0};
    std::vector<std::thread> waiters;
    for (int i = 0; i < 3; ++i) {
      waiters.emplace_back([&, i] {
        try {
          while (true) loop->wait(i % 2 == 0 ? 100.0 : std::numeric_limits<double>::infinity());
        } catch (const Aborted&) {
          ++ended;
        }
      });
    }
    for (std::uint32_t i = 0; i < 10; ++i) loop->submit(make_request(make_prompt(20, i), 1000000));
    const auto start = Clock::now();
    std::thread closer([&] { loop->close(); });
    loop->close();
    closer.join();
    for (std::thread& waiter : waiters) waiter.join();
    CHECK(ended == 3);
    CHECK(seconds_since(start) < 5.0);
    CHECK_THROWS_AS(loop->submit(make_request({1}, 1)), Aborted);
    CHECK_THROWS_AS(loop->wait(0.0), Aborted);
    CHECK_THROWS_AS(loop->busy(), Aborted);
    loop->close();
  }
}

TEST_CASE("callers in the middle of everything survive a close") {
  for (int round = 0; round < 10; ++round) {
    const auto loop = make_loop();
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        try {
          for (std::uint32_t i = 0;; ++i) {
            const RequestId id = loop->submit(make_request(make_prompt(10, i), 5, 2, true));
            if (i % 3 == 0) loop->abort(id);
            if (t == 0) loop->wait(0.001);
            loop->busy();
          }
        } catch (const Aborted&) {
        }
      });
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    loop->close();
    for (std::thread& thread : threads) thread.join();
  }
}

TEST_CASE("wait honours its time-out") {
  const auto loop = make_loop();
  for (const double timeout : {-1.0, 0.0}) {
    const auto start = Clock::now();
    CHECK(loop->wait(timeout).empty());
    CHECK(seconds_since(start) < 1.0);
  }
  CHECK_THROWS_AS(loop->wait(std::numeric_limits<double>::quiet_NaN()), InvalidArgument);
  const auto start = Clock::now();
  CHECK(loop->wait(0.05).empty());
  CHECK(seconds_since(start) >= 0.05);
}

// rule: engine.idle-costs-nothing
TEST_CASE("an idle engine uses no CPU") {
  const auto loop = make_loop();
  loop->submit(make_request(make_prompt(20, 1), 10));
  drain(*loop);
  CHECK(idle_seconds(0.02) < 0.02);
}

// rule: engine.refuses-after-fork
TEST_CASE("in a child of fork() calls throw and closing does not hang") {
  auto loop = make_loop();
  loop->submit(make_request(make_prompt(20, 1), 150));
  const pid_t child = fork();
  if (child == 0) {
    int failures = 0;
    const auto must_throw = [&](const auto& call) {
      try {
        call();
        ++failures;
      } catch (const Aborted& error) {
        failures += std::string(error.what()).find("in a child of fork()") == std::string::npos;
      }
    };
    must_throw([&] { loop->submit(make_request({1}, 1)); });
    must_throw([&] { loop->abort(RequestId{1}); });
    must_throw([&] { loop->wait(1000.0); });
    must_throw([&] { loop->busy(); });
    must_throw([&] { loop->stats(); });
    must_throw([&] { loop->clear_prefix_cache(); });
    must_throw([&] { loop->force_preemption(1); });
    loop->close();
    static_cast<void>(loop.release());
    _exit(failures);
  }
  check_success(child);
  drain(*loop);  // the parent goes on
}

// rule: engine.takes-no-signals, base.our-threads-take-no-signals
TEST_CASE("the engine's thread takes no signals") {
  const auto before = thread_ids();
  const auto loop = make_loop();
  int checked = 0;
  for (const std::string& id : thread_ids()) {
    if (before.count(id) != 0) continue;
    std::ifstream file("/proc/self/task/" + id + "/status");
    for (std::string line; std::getline(file, line);) {
      if (line.rfind("SigBlk:", 0) != 0) continue;
      const auto mask = std::stoull(line.substr(7), nullptr, 16);
      for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGCHLD}) CHECK(((mask >> (signal - 1)) & 1) == 1);
      ++checked;
    }
  }
  CHECK(checked == 1);
  sigset_t mine;
  pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  CHECK(sigismember(&mine, SIGINT) == 0);
}
