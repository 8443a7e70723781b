// A request can fail, the engine cannot: failures injected at every step.
#include <doctest/doctest.h>

#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "engine/scratch_pool.hpp"
#include "fake_executor.hpp"

using namespace fake;

namespace {

std::string aborted_message(const std::function<void()>& call) {
  try {
    call();
  } catch (const Aborted& error) {
    return error.what();
  }
  return {};
}

}  // namespace

// rule: engine.request-fails-alone
TEST_CASE("a request that fails in step k fails alone") {
  for (std::uint64_t step = 1; step <= 12; ++step) {
    std::uint64_t victim = 0;
    LoopOptions options;
    options.max_batched_tokens = 16;
    options.hook = [&](const StepPlan& plan, std::uint64_t now) {
      std::vector<RequestId> failed;
      if (now == step && !plan.sequences.empty()) {
        failed.push_back(plan.sequences.front().request);
        victim = raw(failed.front());
      }
      return failed;
    };
    const auto loop = make_loop(options);
    for (std::uint32_t i = 0; i < 6; ++i) loop->submit(make_request(make_prompt(10 + i, i), 8, 1 + i % 2));
    const Collection all = drain(*loop);
    REQUIRE(victim != 0);
    for (std::uint32_t i = 0; i < 6; ++i) {
      const RequestId id{i + 1};
      CHECK(all.lasts.at(raw(id)) == 1);
      for (std::uint32_t sample = 0; sample < 1 + i % 2; ++sample) {
        const Collected& c = all.at(id, sample);
        if (raw(id) == victim && c.finish == FinishReason::error) {
          CHECK(c.error == "injected");
        } else {
          CHECK(c.tokens == expected_output(make_prompt(10 + i, i), sample, 8));
        }
      }
    }
    CHECK(all.at(RequestId{victim}).finish == FinishReason::error);
    const EngineStats stats = loop->stats();
    CHECK(stats.requests_failed == 1);
    CHECK(stats.requests_finished == 5);
    CHECK(stats.blocks.used == 0);
  }
}

// rule: engine.broken-engine-not-process
TEST_CASE("a step that throws ends every request and poisons the engine, whatever it throws") {
  const std::function<void()> throws[] = {[] { throw Corrupt("broken invariant"); },
                                          [] { throw std::runtime_error("device lost"); }, [] { throw 42; }};
  const std::string reasons[] = {"broken invariant", "device lost", "unknown type"};
  for (std::size_t kind = 0; kind < 3; ++kind) {
    for (std::uint64_t step = 1; step <= 5; ++step) {
      LoopOptions options;
      options.max_sequences = 2;  // others are still waiting
      options.hook = [&](const StepPlan&, std::uint64_t now) {
        if (now == step) throws[kind]();
        return std::vector<RequestId>{};
      };
      const auto loop = make_loop(options);
      std::uint64_t accepted = 0;
      try {
        for (std::uint32_t i = 0; i < 6; ++i) {
          loop->submit(make_request(make_prompt(10, i), 50, 1 + i % 2));
          ++accepted;
        }
      } catch (const Aborted&) {  // it failed meanwhile
      }
      REQUIRE(accepted > 0);
      Collection all;
      std::string reason;
      while (reason.empty()) reason = aborted_message([&] { all.add(loop->wait(0.1)); });
      CHECK(reason.find(reasons[kind]) != std::string::npos);
      CHECK(all.lasts.size() == accepted);
      for (const auto& [id, count] : all.lasts) CHECK(count == 1);
      for (const auto& [key, c] : all.samples) {
        CHECK(c.finish == FinishReason::error);
        CHECK(c.error.find(reasons[kind]) != std::string::npos);
      }
      CHECK_FALSE(aborted_message([&] { loop->submit(make_request({1}, 1)); }).empty());
      CHECK_FALSE(aborted_message([&] { loop->abort(RequestId{1}); }).empty());
      CHECK_FALSE(aborted_message([&] { loop->busy(); }).empty());
      CHECK_FALSE(aborted_message([&] { loop->stats(); }).empty());
      CHECK_FALSE(aborted_message([&] { loop->clear_prefix_cache(); }).empty());
      CHECK_FALSE(aborted_message([&] { loop->force_preemption(1); }).empty());
      loop->close();
      loop->close();
    }
  }
}

// rule: engine.broken-engine-not-process, scheduler.broken-not-the-process
TEST_CASE("an invariant that breaks poisons its engine with the reason, and no other one") {
  const auto other = make_loop();
  const RequestId kept = other->submit(make_request(make_prompt(10, 7), 20));
  // The executor frees a running sequence behind the scheduler's back: nobody can but by a cast.
  Scheduler scheduler({}, {.num_blocks = 64, .block_size = 4});
  auto& cache = const_cast<KvCacheManager&>(scheduler.cache());
  auto requests = std::make_unique<RequestTable>();
  auto executor = std::make_unique<FakeExecutor>(*requests, [&](const StepPlan& plan, std::uint64_t now) {
    if (now == 2) cache.free(plan.sequences.at(0).sequence, StepId{0});
    return std::vector<RequestId>{};
  });
  EngineLoop loop(RequestLimits{kVocab, 200}, std::move(scheduler), std::move(requests), std::move(executor));
  const RequestId lost = loop.submit(make_request(make_prompt(10, 1), 50));
  Collection all;
  std::string reason;
  while (reason.empty()) reason = aborted_message([&] { all.add(loop.wait(0.1)); });
  CHECK(reason.find("the scheduler is broken: ") != std::string::npos);
  CHECK(reason.find("sequence 1 ") != std::string::npos);
  CHECK(all.at(lost).finish == FinishReason::error);
  CHECK(all.at(lost).error.find("the scheduler is broken: ") != std::string::npos);
  CHECK_FALSE(aborted_message([&] { loop.submit(make_request({1}, 1)); }).empty());
  CHECK(drain(*other).at(kept).tokens == expected_output(make_prompt(10, 7), 0, 20));
}

TEST_CASE("an executor that answers wrongly poisons the engine instead of corrupting it") {
  struct WrongExecutor final : Executor {
    StepResult run(const StepPlan& plan) override {
      StepResult result;
      result.step = StepId{raw(plan.step) + 1};
      return result;
    }
  };
  auto requests = std::make_unique<RequestTable>();
  EngineLoop loop({kVocab, 100}, Scheduler({64, 8, 100, 0.01}, {50, 4, true}), std::move(requests),
                  std::make_unique<WrongExecutor>());
  loop.submit(make_request({1, 2, 3}, 4));
  std::string reason;
  Collection all;
  while (reason.empty()) reason = aborted_message([&] { all.add(loop.wait(0.1)); });
  CHECK(all.at(RequestId{1}).finish == FinishReason::error);
}

TEST_CASE("a scratch that could not grow is the last that is taken again") {
  ScratchPool pool;
  auto grown = pool.take(), failed = pool.take();
  const sampling::Scratch *first = grown.get(), *last = failed.get();
  pool.give(std::move(grown));
  pool.give(std::move(failed), true);
  grown = pool.take();
  failed = pool.take();
  CHECK(grown.get() == first);
  CHECK(failed.get() == last);
}
