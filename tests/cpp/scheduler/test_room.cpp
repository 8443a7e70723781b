// How much room an admission asks for, to the block: for every sample and beam, for those who wait for a prefix, and
// beside all that is running already.
#include <doctest/doctest.h>

#include <vector>

#include "pagedcore/error.hpp"
#include "planned.hpp"

using namespace pagedcore;
using fake::computed;
using fake::Ids;
using fake::Planned;
using fake::preempted;
using fake::prompted;
using fake::request;
using fake::swapped_in;
using fake::with;

namespace {

/// The smallest cache in which `newcomer` comes in beside a request that holds 4 blocks and is promised one.
std::uint32_t smallest_cache(const SchedulerRequest& newcomer) {
  for (std::uint32_t blocks = 6; blocks < 100; ++blocks) {
    Planned service({.watermark = 0}, {.num_blocks = blocks, .block_size = 4});
    service.submit(request(1, 15, 4));
    service.next();
    try {
      service.submit(newcomer);
    } catch (const InvalidArgument&) {
      continue;  // not even alone
    }
    const bool comes_in = computed(service.next()) == Ids{1, 2};
    service.finish();
    service.check_outputs();
    if (comes_in) return blocks;
  }
  return 0;
}

}  // namespace

// rule: scheduler.admission-leaves-room
TEST_CASE("an admission asks for the blocks of all samples and beams, shared ones once") {
  SchedulerRequest newcomer = request(2, 8, 4);
  CHECK(smallest_cache(newcomer) == 4 + 1 + 2 + 1);
  newcomer.num_samples = 4;
  CHECK(smallest_cache(newcomer) == 4 + 1 + 2 + 4);
  newcomer.num_samples = 1;
  newcomer.beam_width = 4;
  CHECK(smallest_cache(newcomer) == 4 + 1 + 2 + 4);
  // Samples of one token compute nothing of their own, and the prompt's partly filled block is shared.
  newcomer = request(2, 9, 1);
  newcomer.num_samples = 4;
  CHECK(smallest_cache(newcomer) == 4 + 1 + 3);
}

TEST_CASE("who passes one that waits for its prefix leaves it its room") {
  // The first takes 10 blocks and one for its next token, who waits for it the same again, who passes 5 and one.
  for (const std::uint32_t blocks : {28u, 27u}) {
    Planned service({.watermark = 0}, {.num_blocks = blocks, .block_size = 4});
    const std::vector<TokenId> common(36, 7);
    service.submit(prompted(1, with(common, 4, 1), 4));
    service.submit(prompted(2, with(common, 4, 2), 4));
    service.submit(prompted(3, with({}, 20, 3), 4));
    CHECK(computed(service.next()) == (blocks == 28 ? Ids{1, 3} : Ids{1}));
    CHECK(service.stats().prefix_waits == 1);
    service.finish();
    service.check_outputs();
  }
}

TEST_CASE("as many samples come in as a step has sequences, counted before they start") {
  Planned service({.max_sequences = 4}, {.num_blocks = 64, .block_size = 4});
  for (std::uint64_t id = 1; id <= 3; ++id) {
    SchedulerRequest group = request(id, 6, 6);
    group.num_samples = 2;
    service.submit(group);
  }
  CHECK(computed(service.next()) == Ids{1, 2});
  CHECK(computed(service.next()) == Ids{1, 2});
  service.finish();
  service.check_outputs();

  Planned beside({.max_sequences = 4}, {.num_blocks = 64, .block_size = 4});
  SchedulerRequest group = request(1, 6, 6);
  group.num_samples = 3;
  beside.submit(group);
  beside.next();
  group = request(2, 6, 6);
  group.num_samples = 2;
  beside.submit(group);
  beside.submit(request(3, 6, 6));  // nobody is skipped
  CHECK(computed(beside.next()) == Ids{1});
  beside.finish();
  beside.check_outputs();
}

TEST_CASE("one that comes back from the swap space leaves no room for another one that would take it") {
  for (const std::uint32_t blocks : {11u, 10u}) {
    Planned service({.watermark = 0}, {.num_blocks = blocks, .block_size = 4, .num_swap_blocks = 16});
    service.submit(request(1, 6, 16));
    service.submit(request(2, 16, 8));
    service.next();
    REQUIRE(service.swap(2));
    service.next();
    service.submit(request(3, 11, 4));
    // The first has 2 blocks and is promised one; the second 4, and one for what it computes next; the third takes 3.
    const StepPlan plan = service.next();
    CHECK(swapped_in(plan) == Ids{2});
    CHECK(computed(plan) == (blocks == 11 ? Ids{1, 3} : Ids{1}));
    service.finish();
    service.check_outputs();
  }
}

// rule: scheduler.swapped-come-back-like-new
TEST_CASE("one whose blocks all stayed in memory comes back by an empty plan, which says that the next one goes on") {
  Planned service({.max_batched_tokens = 8, .watermark = 0, .order = ServiceOrder::priority},
                  {.num_blocks = 32, .block_size = 4, .num_swap_blocks = 16});
  const std::vector<TokenId> common(8, 7);
  service.submit(prompted(1, with(common, 4, 1), 2));
  service.next();  // two whole blocks
  SchedulerRequest second = prompted(2, with(common, 16, 2), 1);
  second.priority = 1;
  service.submit(second);
  REQUIRE(computed(service.next()) == Ids{2});  // which it shares
  REQUIRE(service.swap(1));
  StepPlan plan = service.next();
  REQUIRE(plan.swapped_out.size() == 1);
  REQUIRE(plan.swapped_out[0].num_moves == 0);
  REQUIRE(computed(plan) == Ids{2});
  CHECK_FALSE(plan.plan_again());
  REQUIRE(service.stats().running == 0);

  plan = service.next();
  CHECK(plan.empty());
  CHECK(plan.preempted.empty());
  CHECK(swapped_in(plan) == Ids{1});
  CHECK(plan.plan_again());
  plan = service.scheduler.plan(0.0);
  CHECK(computed(plan) == Ids{1});
  CHECK(plan.sequences[0].first_position == 8);  // nothing is computed again
  // That step moves nobody, whatever the plan before it did.
  StepResult result = service.executor.run(plan);
  result.swap_failed.push_back(RequestId{1});
  CHECK_THROWS_AS(service.scheduler.commit(result), InvalidArgument);
  result.swap_failed.clear();
  service.take_in(service.scheduler.commit(result));
  service.finish();
  service.check_outputs();
  CHECK_FALSE(service.scheduler.plan(0.0).plan_again());  // nothing to do
}

TEST_CASE("one that is alone takes less from the cache where that would take a block more") {
  // Four blocks, and a match of one and a half: with the block that is copied from that makes five.
  for (const bool windows : {false, true}) {
    CAPTURE(windows);
    KvCacheConfig cache{.num_blocks = 4, .block_size = 4};
    if (windows) cache.windows = {64};
    Planned service({}, cache);
    service.submit(prompted(1, with({}, 6, 7), 0));
    service.next();
    REQUIRE(service.scheduler.cache().counts().cached == 2);
    service.submit(prompted(2, with(with({}, 6, 7), 9, 8), 2));
    service.next();
    CHECK(service.stats().running == 1);
    CHECK(service.stats().prefix_hit_tokens == (windows ? 0 : 4));
    service.finish();
    service.check_outputs();
  }
}
