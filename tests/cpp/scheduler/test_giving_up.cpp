// Requests that wait in the swap space and hold blocks that others read too: who is given up, to be recomputed, and who
// is not.
#include <doctest/doctest.h>

#include <vector>

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

/// Requests 2 and 3, and, with `pairs` of 2, 4 and 5: pairs that share 4 blocks and have one each. All are swapped out:
/// what a pair shares stays in memory, held by both.
void swap_out_pairs(Planned& service, std::uint64_t pairs) {
  for (std::uint64_t i = 0; i < pairs; ++i) {
    const std::vector<TokenId> common(16, static_cast<TokenId>(7 + i));
    service.submit(prompted(2 + 2 * i, with(common, 2, 1), 8));
    service.submit(prompted(3 + 2 * i, with(common, 2, 2), 8));
  }
  service.next(2);
  REQUIRE(service.stats().running == 2 * pairs);
  for (std::uint64_t id = 2; id < 2 + 2 * pairs; ++id) REQUIRE(service.swap(id));
  service.next();
  REQUIRE(service.stats().swapped == 2 * pairs);
  REQUIRE(service.scheduler.cache().counts().used == 4 * pairs);
}

}  // namespace

// rule: scheduler.later-makes-room
TEST_CASE("those who wait in the swap space are given up from the last on, and no more than is needed") {
  // The first arrives late with an early time of arrival, is alone, and needs 12 blocks of 16, of which 8 are held.
  Planned service({.watermark = 0}, {.num_blocks = 16, .block_size = 4, .num_swap_blocks = 16});
  swap_out_pairs(service, 2);
  SchedulerRequest first = request(1, 46, 3);
  service.submit(first);
  CHECK(computed(service.next()) == Ids{1});
  CHECK(service.stats().swap_fallbacks == 2);
  CHECK(service.stats().swapped == 2);
  while (service.stats().swapped == 2) {
    const StepPlan plan = service.next();
    if (!plan.swapped_in.empty()) CHECK(swapped_in(plan) == Ids{2, 3});
  }
  service.finish();
  service.check_outputs();
}

TEST_CASE("a running request takes from those who wait behind it, not from those before it") {
  for (const bool is_first : {false, true}) {
    CAPTURE(is_first);
    Planned service({.watermark = 1.0 / 3}, {.num_blocks = 24, .block_size = 4, .num_swap_blocks = 64});
    const std::vector<TokenId> common(16, 7);
    service.submit(prompted(2, with(common, 2, 1), 40));
    service.submit(prompted(3, with(common, 2, 2), 40));
    service.next(2);
    SchedulerRequest runner = request(9, 16, 20);
    runner.num_samples = 4;
    runner.arrival = is_first ? 1.0 : 9.0;
    service.submit(runner);
    service.next();
    REQUIRE(service.stats().running == 3);
    while (service.scheduler.cache().available() > 4) service.next();
    // The pair goes. The watermark keeps it out while the runner grows, by 4 blocks every 4 steps, up to 24.
    REQUIRE(service.swap(2));
    REQUIRE(service.swap(3));
    service.next();
    while (service.stats().swapped == 2 && service.stats().running == 1) service.next();
    CHECK(service.stats().swap_fallbacks == (is_first ? 2 : 0));
    CHECK(service.stats().running == (is_first ? 1 : 0));
    service.finish();
    service.check_outputs();
  }
}

TEST_CASE("one that is given up does not hold up those behind it in the same step") {
  Planned service({.watermark = 0}, {.num_blocks = 16, .block_size = 4, .num_swap_blocks = 16});
  swap_out_pairs(service, 1);
  SchedulerRequest first = request(1, 49, 3);  // 13 blocks of 16, of which 4 are held
  service.submit(first);
  service.submit(request(9, 4, 3));
  CHECK(computed(service.next()) == Ids{1, 9});
  CHECK(service.stats().swap_fallbacks == 2);
  service.finish();
  service.check_outputs();
}

TEST_CASE("for a higher priority with none of its own running all go, also those that share most of what they hold") {
  // Each of the two frees one block, as the price of a victim goes; together they free 6, and the other one needs 7.
  Planned service({.watermark = 0, .order = ServiceOrder::priority}, {.num_blocks = 8, .block_size = 4});
  const std::vector<TokenId> common(16, 7);
  service.submit(prompted(2, with(common, 2, 1), 8));
  service.submit(prompted(3, with(common, 2, 2), 8));
  service.next(2);
  REQUIRE(service.scheduler.cache().counts().used == 6);
  SchedulerRequest high = request(9, 26, 4);
  high.priority = 1;
  service.submit(high);
  CHECK(preempted(service.next()).size() == 2);
  CHECK(computed(service.next()) == Ids{9});
  service.finish();
  service.check_outputs();
}
