// Who makes room, how, and what it costs: the cheapest per block, nobody twice without progress, a shared block once.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "fake_executor.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;
using fake::request;

namespace {

struct Service {
  Service(const SchedulerConfig& config, const KvCacheConfig& cache) : scheduler(config, cache), executor(cache, 0) {}
  StepPlan step() {
    const StepPlan plan = scheduler.plan(0.0);
    scheduler.check();
    if (!plan.empty()) scheduler.commit(executor.run(plan));
    scheduler.check();
    return plan;
  }
  StepPlan until_preemption() {
    for (int i = 0; i < 1000; ++i) {
      StepPlan plan = step();
      if (!plan.preempted.empty()) return plan;
    }
    FAIL("nobody was preempted");
    return {};
  }
  void finish() {
    for (int i = 0; scheduler.has_work(); ++i) {
      REQUIRE(i < 1000);
      step();
    }
    CHECK(scheduler.cache().counts().used == 0);
    CHECK(scheduler.cache().counts().swapped == 0);
  }
  Scheduler scheduler;
  fake::Executor executor;
};

using Ids = std::vector<RequestId>;

}  // namespace

// rule: scheduler.cheapest-frees-most-for-least
TEST_CASE("the later request that costs least per block goes, not the latest") {
  // Blocks of 4. Request 2 has a last block with one token when blocks run out, request 3 full ones.
  Service service({.watermark = 0}, {.num_blocks = 14, .block_size = 4, .enable_prefix_caching = false});
  service.scheduler.submit(request(1, 15, 30));
  service.scheduler.submit(request(2, 14, 12));
  service.scheduler.submit(request(3, 11, 12));
  service.step();
  while (service.scheduler.cache().counts().free > 0) service.step();
  const auto tokens = [&](std::uint64_t id) {
    return static_cast<double>(service.scheduler.tokens(RequestId{id}, 0).size() - 1);
  };
  const auto per_block = [&](std::uint64_t id) { return tokens(id) / std::ceil(tokens(id) / 4); };
  StepPlan plan;
  double two = 0.0, three = 0.0;
  do {
    two = per_block(2), three = per_block(3);
    plan = service.step();
  } while (plan.preempted.empty());
  REQUIRE(two < three);  // what the sizes were chosen for
  CHECK(plan.preempted == Ids{RequestId{2}});
  service.finish();
}

// rule: scheduler.cheapest-frees-most-for-least
TEST_CASE("nobody is preempted twice without progress while somebody else could be") {
  Service service({.max_batched_tokens = 8, .watermark = 0},
                  {.num_blocks = 24, .block_size = 2, .enable_prefix_caching = false});
  service.scheduler.submit(request(1, 6, 30));
  service.scheduler.submit(request(2, 7, 20));
  service.scheduler.submit(request(3, 6, 20));
  std::map<std::uint64_t, std::size_t> at;  // tokens of a request when it was last preempted
  std::uint64_t preemptions = 0;
  for (int i = 0; service.scheduler.has_work(); ++i) {
    REQUIRE(i < 1000);
    const std::size_t before[] = {0, service.scheduler.tokens(RequestId{1}, 0).size(),
                                  service.scheduler.tokens(RequestId{2}, 0).size(),
                                  service.scheduler.tokens(RequestId{3}, 0).size()};
    for (const RequestId id : service.step().preempted) {
      ++preemptions;
      if (at.contains(raw(id))) CHECK(before[raw(id)] > at[raw(id)]);
      at[raw(id)] = before[raw(id)];
    }
  }
  CHECK(preemptions >= 2);
}

TEST_CASE("automatic preemption takes what measured costs say is cheaper") {
  const auto preempted_by = [](const PreemptionCosts& costs, PreemptionMode mode) {
    Service service({.watermark = 0, .preemption = mode}, {.num_blocks = 12, .block_size = 4, .num_swap_blocks = 20});
    service.scheduler.set_preemption_costs(costs);
    service.scheduler.submit(request(1, 15, 20));
    service.scheduler.submit(request(2, 15, 20));
    service.until_preemption();
    const SchedulerStats stats = service.scheduler.stats();
    service.finish();
    CHECK(stats.preemptions_swap + stats.preemptions_recompute == 1);
    return stats.preemptions_swap == 1 ? PreemptionMode::swap : PreemptionMode::recompute;
  };
  const PreemptionCosts slow_disk{1e-4, 1e-2, 1e-2}, slow_model{1e-2, 1e-4, 1e-4}, unknown{};
  CHECK(preempted_by(slow_disk, PreemptionMode::automatic) == PreemptionMode::recompute);
  CHECK(preempted_by(slow_model, PreemptionMode::automatic) == PreemptionMode::swap);
  CHECK(preempted_by(unknown, PreemptionMode::automatic) == PreemptionMode::swap);
  CHECK(preempted_by(slow_disk, PreemptionMode::swap) == PreemptionMode::swap);
  CHECK(preempted_by(slow_model, PreemptionMode::recompute) == PreemptionMode::recompute);
}

// rule: kv.shared-moves-once
TEST_CASE("a group moves as one, and what its sequences share moves once") {
  Service service({.watermark = 0}, {.num_blocks = 40, .block_size = 4, .num_swap_blocks = 40});
  SchedulerRequest group = request(1, 22, 10);
  group.num_samples = 4;
  service.scheduler.submit(group);
  for (int i = 0; i < 4; ++i) service.step();
  const KvCacheCounts before = service.scheduler.cache().counts();
  REQUIRE(service.scheduler.force_preempt(RequestId{1}, PreemptionMode::swap));
  StepPlan plan = service.step();
  REQUIRE(plan.swapped_out.size() == 1);
  CHECK(plan.swap_outs.size() == before.used);  // not once for each of the four
  CHECK(plan.sequences.empty());
  CHECK(service.scheduler.cache().counts().used == 0);
  CHECK(service.scheduler.cache().counts().swapped == before.used);
  CHECK(service.scheduler.stats().swapped == 1);
  plan = service.step();
  CHECK(plan.swap_ins.size() == before.used);
  CHECK(plan.sequences.empty());  // it computes once its blocks are known to be there
  CHECK(service.scheduler.cache().counts().shared == before.shared);
  plan = service.step();
  CHECK(plan.sequences.size() == 4);
  CHECK(service.scheduler.stats().tokens_recomputed == 0);
  service.finish();
}

// rule: scheduler.swapped-come-back-like-new
TEST_CASE("what the swap space lost is recomputed; a request that is swapped out can be aborted") {
  Service service({.watermark = 0}, {.num_blocks = 40, .block_size = 4, .num_swap_blocks = 8});
  service.executor.lose_every = 1;  // all of it
  service.scheduler.submit(request(1, 22, 10));
  service.step();
  REQUIRE(service.scheduler.force_preempt(RequestId{1}, PreemptionMode::swap));
  service.step();
  CHECK(service.scheduler.stats().swap_fallbacks == 1);
  CHECK(service.scheduler.stats().swapped == 0);
  service.executor.lose_every = 0;
  service.step();
  REQUIRE(service.scheduler.force_preempt(RequestId{1}, PreemptionMode::swap));
  service.step();
  CHECK(service.scheduler.stats().swapped == 1);
  CHECK(service.scheduler.abort(RequestId{1}));
  service.scheduler.check();
  CHECK(service.scheduler.cache().counts().swapped == 0);
  // A result that blames a request which the plan did not move does not answer the plan.
  service.scheduler.submit(request(2, 5, 2));
  const StepPlan plan = service.scheduler.plan(0.0);
  StepResult result = service.executor.run(plan);
  result.swap_failed.push_back(RequestId{2});
  CHECK_THROWS_AS(service.scheduler.commit(result), InvalidArgument);
  result.swap_failed.clear();
  service.scheduler.commit(result);
  service.finish();
}
