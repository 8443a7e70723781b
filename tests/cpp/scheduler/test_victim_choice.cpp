// Which of several victims goes: what a group shares is freed once, what strangers hold is not freed, and nobody goes
// twice without progress while another one could.
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

/// The first plan that preempts.
StepPlan until_preemption(Planned& service) {
  for (int i = 0; i < 100; ++i) {
    StepPlan plan = service.next();
    if (!plan.preempted.empty()) return plan;
  }
  FAIL("nobody was preempted");
  return {};
}

}  // namespace

// rule: scheduler.cheapest-frees-most-for-least
TEST_CASE("what a group shares is counted once in what it frees") {
  // When the first needs its third block, the pair holds 4 shared blocks and one of its own each, 3 slots of the last
  // unused; the third request 5 blocks, 2 slots unused: 21 tokens for 6 blocks cost less each than 18 for 5. Were
  // shared blocks counted twice, the pair would cost 37 for 10, which is more.
  Planned service({.watermark = 0}, {.num_blocks = 13, .block_size = 4});
  service.submit(request(1, 7, 12));
  SchedulerRequest pair = request(2, 16, 8);
  pair.num_samples = 2;
  service.submit(pair);
  service.submit(request(3, 17, 8));
  service.next(2);
  REQUIRE(service.scheduler.cache().counts().used == 13);
  CHECK(preempted(service.next()) == Ids{2});
  service.finish();
  service.check_outputs();
}

TEST_CASE("blocks that strangers hold too are not among those that a victim frees") {
  // When the first needs its eleventh block, the third holds 18 tokens in 5 blocks, 4 of them with the first: its going
  // frees one, with 2 tokens. The second's would free 2, with 5 tokens. Were all counted, the third would cost more.
  Planned service({.watermark = 0}, {.num_blocks = 13, .block_size = 4});
  const std::vector<TokenId> common(16, 7);
  service.submit(prompted(1, with(common, 22, 1), 12));
  service.next();
  service.submit(prompted(2, with({}, 4, 2), 24));
  service.submit(prompted(3, with(common, 1, 3), 24));
  service.next(2);
  REQUIRE(service.scheduler.cache().counts().used == 13);
  CHECK(preempted(service.next()) == Ids{3});
  service.finish();
  service.check_outputs();
}

TEST_CASE("one that has not progressed since it was preempted is spared for a costlier one that has") {
  // The request that was swapped out is back and has computed nothing yet when the first needs its third block. It
  // holds 5 tokens in 2 blocks, the other one 8: it is the cheaper one, and stays, whichever of them comes first.
  for (const std::uint64_t spared : {2u, 3u}) {
    CAPTURE(spared);
    const std::uint64_t victim = 5 - spared;
    Planned service({.watermark = 0, .admission = AdmissionPolicy::watermark},
                    {.num_blocks = 6, .block_size = 4, .num_swap_blocks = 6});
    service.submit(request(1, 6, 10));
    service.submit(request(2, spared == 2 ? 5 : 6, 10));
    service.submit(request(3, spared == 3 ? 5 : 6, 10));
    service.next();
    REQUIRE(service.swap(spared));
    CHECK(preempted(service.next()) == Ids{spared});
    CHECK(swapped_in(service.next()) == Ids{spared});
    CHECK(preempted(service.next()) == Ids{victim});
    service.finish();
    service.check_outputs();
  }
}

TEST_CASE("with progress again the cheaper one goes") {
  for (const std::uint64_t swapped : {2u, 3u}) {
    Planned service({.watermark = 0, .admission = AdmissionPolicy::watermark},
                    {.num_blocks = 6, .block_size = 4, .num_swap_blocks = 6});
    service.submit(request(1, 5, 10));
    service.submit(request(2, swapped == 2 ? 4 : 5, 10));
    service.submit(request(3, swapped == 3 ? 4 : 5, 10));
    service.next();
    REQUIRE(service.swap(swapped));
    service.next(2);
    CHECK(computed(service.next()) == Ids{1, 2, 3});  // it samples: 5 tokens in 2 blocks, of 8 in 2
    CHECK(preempted(service.next()) == Ids{swapped});
    service.finish();
    service.check_outputs();
  }
}

TEST_CASE("where moving blocks is what preemption costs, one block costs as much as any other, and the last goes") {
  for (const bool known : {false, true}) {
    Planned service({.watermark = 0, .preemption = PreemptionMode::swap},
                    {.num_blocks = 13, .block_size = 4, .num_swap_blocks = 13});
    if (known) service.scheduler.set_preemption_costs({1e-3, 1e-4, 1e-4});
    service.submit(request(1, 7, 12));
    SchedulerRequest pair = request(2, 16, 8);
    pair.num_samples = 2;
    service.submit(pair);
    service.submit(request(3, 17, 8));
    service.next(2);
    CHECK(preempted(service.next()) == (known ? Ids{3} : Ids{2}));
    service.finish();
    service.check_outputs();
  }
}

TEST_CASE("without a swap space nobody is said to have fallen back from it") {
  for (const PreemptionMode mode : {PreemptionMode::automatic, PreemptionMode::swap}) {
    Planned service({.watermark = 0, .preemption = mode}, {.num_blocks = 8, .block_size = 4});
    service.submit(request(1, 14, 12));
    service.submit(request(2, 14, 12));
    CHECK(preempted(until_preemption(service)) == Ids{2});
    CHECK(service.stats().preemptions_recompute == 1);
    CHECK(service.stats().preemptions_swap == 0);
    CHECK(service.stats().swap_fallbacks == 0);
    service.finish();
    service.check_outputs();
  }
}

TEST_CASE("computing again what was computed before is no progress") {
  // The second lost its 17 tokens on the way to the swap space. When the first needs its fourth block it has computed
  // 17 again, in 5 blocks with 3 slots unused, and is cheaper than the third with 7 tokens in 2 blocks: that one goes.
  Planned service({.max_batched_tokens = 10, .watermark = 0, .admission = AdmissionPolicy::watermark},
                  {.num_blocks = 10, .block_size = 4, .enable_prefix_caching = false, .num_swap_blocks = 10});
  service.submit(request(1, 7, 20));
  service.submit(request(2, 17, 8));
  service.submit(request(3, 6, 8));
  service.next(3);
  REQUIRE(service.swap(2));
  service.executor.lose_every = 1;
  CHECK(preempted(service.next()) == Ids{2});
  service.executor.lose_every = 0;
  REQUIRE(service.stats().swap_fallbacks == 1);
  service.next(2);
  REQUIRE(service.stats().tokens_recomputed == 17);
  CHECK(preempted(service.next()) == Ids{3});
  service.finish();
  service.check_outputs();
}

TEST_CASE("computing further tokens of a prompt is progress, sampled or not") {
  // The third was preempted after 8 tokens of its prompt, found them again and is at 22, in 6 blocks: with 2 slots
  // unused it costs less than the second, with 12 tokens in 3.
  Planned service({.max_batched_tokens = 10, .watermark = 0, .admission = AdmissionPolicy::watermark},
                  {.num_blocks = 14, .block_size = 4});
  SchedulerRequest pair = request(1, 8, 16);
  pair.num_samples = 2;
  service.submit(pair);
  service.submit(request(2, 9, 16));
  service.submit(request(3, 26, 8));
  service.next(3);
  REQUIRE(service.scheduler.force_preempt(RequestId{3}));
  service.next(2);
  REQUIRE(service.stats().preemption_hit_tokens == 8);
  REQUIRE(service.scheduler.cache().available() == 1);
  CHECK(preempted(service.next()) == Ids{3});
  service.finish();
  service.check_outputs();
}

TEST_CASE("the lowest priority goes first, whatever it costs") {
  Planned service({.watermark = 0, .order = ServiceOrder::priority}, {.num_blocks = 6, .block_size = 4});
  for (std::uint64_t id = 1; id <= 3; ++id) {
    SchedulerRequest made = request(id, id == 2 ? 4 : 7, 10);
    made.priority = 3 - static_cast<std::int32_t>(id);
    service.submit(made);
  }
  service.next(2);
  REQUIRE(service.scheduler.cache().available() == 0);
  CHECK(preempted(service.next()) == Ids{3});  // 8 tokens in 2 blocks; the second would be 5 in 2
  service.finish();
  service.check_outputs();
}

TEST_CASE("last_arrival: the last goes, whatever it costs and whether it has progressed or not") {
  Planned service({.watermark = 0, .victim = VictimPolicy::last_arrival}, {.num_blocks = 13, .block_size = 4});
  service.submit(request(1, 7, 12));
  SchedulerRequest pair = request(2, 16, 8);
  pair.num_samples = 2;
  service.submit(pair);
  service.submit(request(3, 17, 8));
  service.next(2);
  CHECK(preempted(service.next()) == Ids{3});
  service.finish();
  service.check_outputs();
}
