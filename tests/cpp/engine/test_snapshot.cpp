// Looking at an engine while it works: what it says, and that nobody waits for ever.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "fake_executor.hpp"

using namespace fake;

namespace {

EngineRequest endless(std::uint32_t seed) {
  EngineRequest request = make_request(make_prompt(5, seed), 150);
  request.sampling.stop_token_ids = {};
  return request;
}

}  // namespace

TEST_CASE("a snapshot has the requests, the blocks and the latest steps") {
  std::mutex closed;
  std::atomic<std::uint64_t> steps{0};
  const auto loop = make_loop({.hook = [&](const StepPlan&, std::uint64_t step) {
    steps = step;
    const std::lock_guard through(closed);
    return std::vector<RequestId>();
  }});
  const EngineSnapshot idle = loop->snapshot({});
  CHECK(idle.requests.empty());
  CHECK(idle.steps.empty());
  CHECK(idle.cells == std::vector<std::uint8_t>(200));
  EngineSnapshot busy;
  std::thread viewer;
  {
    const std::lock_guard hold(closed);
    loop->submit(make_request(make_prompt(9, 1), 1));
    while (steps == 0) std::this_thread::yield();
    viewer = std::thread([&] { busy = loop->snapshot({}); });  // waits for the end of the step
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  viewer.join();
  REQUIRE(busy.steps.size() == 1);
  const StepPicture& step = busy.steps[0];
  CHECK(raw(step.step) == 1);
  CHECK(step.prefill_tokens == 9);
  CHECK(step.decode_tokens == 0);
  CHECK(step.sequences == 1);
  CHECK(step.seconds >= step.plan_seconds);
  CHECK(step.start + step.seconds <= busy.time);
  CHECK(busy.time <= loop->now());
  CHECK(loop->wait(10.0).size() == 1);
}

TEST_CASE("of the steps the latest are kept, in order") {
  const auto loop = make_loop();
  for (std::uint32_t i = 0; i < 4; ++i) loop->submit(endless(i * 3 + 1));
  while (loop->busy()) static_cast<void>(loop->wait(10.0));
  for (std::uint32_t i = 0; i < 4; ++i) {
    loop->submit(endless(i * 3 + 1));
    while (loop->busy()) static_cast<void>(loop->wait(10.0));
  }
  const EngineSnapshot picture = loop->snapshot({});
  REQUIRE(picture.steps.size() <= 240);
  const std::uint64_t last = loop->stats().scheduler.steps;
  CHECK(raw(picture.steps.back().step) == last);
  for (std::size_t i = 1; i < picture.steps.size(); ++i) {
    CHECK(raw(picture.steps[i].step) == raw(picture.steps[i - 1].step) + 1);
    CHECK(picture.steps[i].start >= picture.steps[i - 1].start);
  }
}

TEST_CASE("limits outside their ranges are refused") {
  const auto loop = make_loop();
  CHECK_THROWS_WITH_AS(loop->snapshot({.max_cells = 0}),
                       "snapshot limit max_cells = 0 is out of range: it must lie in [1, 1048576]", InvalidArgument);
  CHECK_THROWS_AS(loop->snapshot({.max_requests = 1 << 20}), InvalidArgument);
}

// rule: engine.looked-at-between-steps
TEST_CASE("a paused engine shows itself, one that ends refuses, whoever waits is told") {
  const auto loop = make_loop();
  loop->submit(endless(1));
  loop->pause();
  CHECK(loop->snapshot({}).requests.size() == 1);
  loop->resume();
  loop->close();
  CHECK_THROWS_AS(loop->snapshot({}), Aborted);

  std::mutex closed;
  std::atomic<bool> inside{false};
  const auto broken = make_loop({.hook = [&](const StepPlan&, std::uint64_t) -> std::vector<RequestId> {
    inside = true;
    const std::lock_guard through(closed);
    throw Corrupt("injected");
  }});
  std::atomic<int> told{0};
  std::vector<std::thread> viewers;
  {
    const std::lock_guard hold(closed);
    broken->submit(make_request(make_prompt(9, 1), 3));
    while (!inside) std::this_thread::yield();
    for (int i = 0; i < 3; ++i) {
      viewers.emplace_back([&] {
        try {
          static_cast<void>(broken->snapshot({}));
        } catch (const Aborted& error) {
          told += std::string(error.what()).find("injected") != std::string::npos;
        }
      });
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  for (std::thread& viewer : viewers) viewer.join();
  CHECK(told == 3);
}

TEST_CASE("waiting for events ends with the first, after its time, and with the engine") {
  const auto loop = make_loop();
  const auto begun = std::chrono::steady_clock::now();
  CHECK(loop->cache_events(0.05).empty());
  CHECK(std::chrono::steady_clock::now() - begun >= std::chrono::milliseconds(50));
  CHECK_THROWS_AS(loop->cache_events(std::numeric_limits<double>::quiet_NaN()), InvalidArgument);
  std::atomic<bool> told{false};
  std::thread waiter([&] {
    try {
      static_cast<void>(loop->cache_events(1000.0));
    } catch (const Aborted&) {
      told = true;
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  loop->close();
  waiter.join();
  CHECK(told);
}
