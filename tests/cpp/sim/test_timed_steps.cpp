// Durations of steps from a trace: what they were of, and which are not known.
#include <doctest/doctest.h>

#include <filesystem>
#include <random>
#include <string>

#include "pagedcore/error.hpp"
#include "pagedcore/simulation.hpp"
#include "pagedcore/trace.hpp"

using namespace pagedcore;

TEST_CASE("a step lasts until the next plan, unless nothing was left to do") {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("pagedcore-timed-" + std::to_string(std::random_device{}()))).string();
  const SchedulerConfig config;
  const KvCacheConfig cache{.num_blocks = 16, .enable_prefix_caching = false};
  {
    Scheduler scheduler(config, cache);
    TraceWriter trace(path, config, cache);
    std::uint64_t id = 0;
    const auto submit = [&](std::size_t prompt, std::uint32_t max_tokens) {
      SchedulerRequest request;
      request.id = RequestId{++id};
      request.prompt.assign(prompt, TokenId{1});
      request.max_tokens = max_tokens;
      scheduler.submit(request);
      trace.submit(request);
    };
    const auto step = [&](double now) {
      const StepPlan plan = scheduler.plan(now);
      trace.plan(now, plan);
      StepResult result;
      result.step = plan.step;
      for (const ScheduledSequence& work : plan.sequences)
        result.tokens.push_back({work.sequence, 0, TokenId{2}, false});
      scheduler.commit(result);
      trace.commit(result);
    };
    submit(20, 2);
    step(1.0);
    step(1.5);  // its last
    submit(7, 3);
    step(10.0);
    submit(5, 3);
    step(10.25);
    step(11.25);
    step(12.0);
  }
  const std::vector<TimedStep> steps = timed_steps(path);
  REQUIRE(steps.size() == 4);
  CHECK(steps[0].seconds == 0.5);
  CHECK(steps[0].work.rows == 20.0);
  CHECK(steps[0].work.pairs == 210.0);
  CHECK(steps[0].work.context == 0.0);
  CHECK(steps[0].work.samples == 1.0);
  CHECK(steps[1].seconds == 0.25);
  CHECK(steps[1].work.rows == 7.0);
  CHECK(steps[2].seconds == 1.0);
  CHECK(steps[2].work.rows == 6.0);
  CHECK(steps[2].work.context == 8.0);  // of the decode; the prompt has none before it
  CHECK(steps[3].seconds == 0.75);
  CHECK(steps[3].work.samples == 2.0);
  std::filesystem::remove(path);
  CHECK_THROWS_AS(timed_steps(path), Io);
}
