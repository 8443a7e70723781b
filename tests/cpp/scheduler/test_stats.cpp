// The counters and gauges, each against a service small enough to count by hand.
#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "planned.hpp"

using namespace pagedcore;
using fake::Planned;
using fake::prompted;
using fake::request;
using fake::with;

TEST_CASE("slots_unused and tokens_cached count every sequence of those who run") {
  Planned service({}, {.num_blocks = 64, .block_size = 4, .num_swap_blocks = 16});
  service.submit(request(1, 5, 8));
  service.next();
  CHECK(service.stats().tokens_cached == 5);
  CHECK(service.stats().slots_unused == 3);
  SchedulerRequest group = request(2, 6, 8);
  group.num_samples = 3;
  service.submit(group);
  service.next();  // the first has 6 tokens; each of the three the prompt's 6
  CHECK(service.stats().tokens_cached == 6 + 3 * 6);
  CHECK(service.stats().slots_unused == 2 + 3 * 2);
  service.next(2);
  CHECK(service.stats().tokens_cached == 8 + 3 * 8);
  CHECK(service.stats().slots_unused == 0);
  REQUIRE(service.swap(1));
  service.next();
  CHECK(service.stats().tokens_cached == 3 * 9);  // those who wait in the swap space hold no blocks
  CHECK(service.stats().slots_unused == 3 * 3);
  CHECK(service.stats().swapped == 1);
  CHECK(service.stats().waiting == 1);
  CHECK(service.stats().running == 1);
  service.finish();
  service.check_outputs();
}

// rule: scheduler.counters-follow-plans
TEST_CASE("blocks that are swapped, copied and forked are counted as the plans list them") {
  Planned service({}, {.num_blocks = 64, .block_size = 4, .num_swap_blocks = 64});
  SchedulerRequest group = request(1, 6, 12);
  group.num_samples = 3;
  service.submit(group);
  service.submit(request(2, 9, 12));
  std::uint64_t copies = 0, outs = 0, ins = 0, rows = 0, drawn = 0, steps = 0, returns = 0;
  for (int i = 0; service.scheduler.has_work(); ++i) {
    if (i == 3 || i == 8) service.swap(1);
    if (i == 5) service.swap(2);
    const StepPlan plan = service.next();
    copies += plan.copies.size();
    outs += plan.swap_outs.size();
    ins += plan.swap_ins.size();
    rows += plan.tokens.size();
    for (const ScheduledSequence& s : plan.sequences) drawn += s.num_samples;
    steps += !plan.empty();
    returns += plan.swapped_in.size();
  }
  REQUIRE(returns == 3);
  const SchedulerStats stats = service.stats();
  CHECK(stats.steps == steps);
  CHECK(stats.tokens_computed == rows);
  CHECK(stats.tokens_sampled == drawn);
  CHECK(stats.tokens_recomputed == 0);
  CHECK(stats.forks == 2);
  CHECK(stats.block_copies == copies);
  CHECK(copies == 2);
  CHECK(stats.blocks_swapped_out == outs);
  CHECK(stats.blocks_swapped_in == ins);
  CHECK(outs == ins);
  CHECK(stats.preemptions_swap == 3);
  CHECK(stats.preemptions_recompute == 0);
  CHECK(stats.swap_fallbacks == 0);
  service.check_outputs();
}

// rule: scheduler.counters-follow-plans
TEST_CASE("hits are counted by what gave them: the cache, a registered prefix, or a preemption's remains") {
  Planned service({}, {.num_blocks = 64, .block_size = 4});
  const std::vector<TokenId> common(16, 7);
  const SchedulerRequest prefix = prompted(9, common, 0);
  service.scheduler.register_prefix(PrefixId{1}, prefix, true);
  service.requests[9] = prefix;
  service.submit(prompted(1, with({}, 12, 3), 0));
  service.next();
  SchedulerRequest user = prompted(2, with(common, 5, 1), 10);
  user.salt = 77;  // of another tenant: only by its name
  user.prefix = PrefixId{1};
  service.submit(user);
  service.next();
  CHECK(service.stats().pinned_hit_tokens == 16);
  CHECK(service.stats().prefix_hit_tokens == 0);
  service.submit(prompted(3, with(with({}, 12, 3), 5, 4), 10));
  service.next();
  CHECK(service.stats().prefix_hit_tokens == 12);
  CHECK(service.stats().pinned_hit_tokens == 16);
  service.next(2);
  // The third knows 20 tokens, 19 of them computed; it comes back at once and finds all of these.
  const std::uint64_t computed = service.stats().tokens_computed;
  REQUIRE(service.scheduler.force_preempt(RequestId{3}));
  service.next();
  CHECK(service.stats().preemption_hit_tokens == 19);
  CHECK(service.stats().prefix_hit_tokens == 12);
  CHECK(service.stats().pinned_hit_tokens == 16);
  CHECK(service.stats().tokens_recomputed == 0);
  CHECK(service.stats().tokens_computed == computed + 2);
  CHECK(service.stats().preemptions_recompute == 1);
  while (service.scheduler.has_work()) service.next();
  service.check_outputs();
}

TEST_CASE("rows that are computed again are counted, and those beyond them are not") {
  Planned service({.max_batched_tokens = 64}, {.num_blocks = 16, .block_size = 4});
  service.submit(request(1, 10, 12));
  service.next(3);
  REQUIRE(service.scheduler.force_preempt(RequestId{1}));
  service.scheduler.clear_prefix_cache();
  const StepPlan plan = service.next();
  REQUIRE(plan.tokens.size() == 13);  // 12 that were computed, and the last token
  CHECK(service.stats().tokens_recomputed == 12);
  service.next();
  CHECK(service.stats().tokens_recomputed == 12);
  service.finish();
  service.check_outputs();
}

TEST_CASE("blocks that registered prefixes share are pinned once, and what windows have passed is not pinned") {
  Planned service({}, {.num_blocks = 64, .block_size = 4});
  const std::vector<TokenId> common(16, 7);
  for (std::uint64_t id = 1; id <= 3; ++id) {
    const SchedulerRequest prefix = prompted(id, with(common, 6, static_cast<TokenId>(id)), 0);
    service.scheduler.register_prefix(PrefixId{id}, prefix);
    service.requests[id] = prefix;
    while (service.scheduler.has_work()) service.next();
  }
  CHECK(service.stats().prefixes == 3);
  CHECK(service.scheduler.cache().counts().used == 4 + 3 * 2);
  CHECK(service.stats().blocks_pinned == 4 + 3 * 2);
  service.scheduler.release_prefix(PrefixId{2});
  CHECK(service.stats().prefixes == 2);
  CHECK(service.stats().blocks_pinned == 4 + 2 * 2);

  Planned windowed({.max_batched_tokens = 8}, {.num_blocks = 64, .block_size = 4, .windows = {0, 8}});
  const SchedulerRequest prefix = request(1, 24, 0);
  windowed.scheduler.register_prefix(PrefixId{1}, prefix);
  windowed.requests[1] = prefix;
  while (windowed.scheduler.has_work()) windowed.next();
  CHECK(windowed.scheduler.cache().counts().used < 12);
  CHECK(windowed.stats().blocks_pinned == windowed.scheduler.cache().counts().used);
}

TEST_CASE("contiguous: slots that are reserved for later, and those that never will be used") {
  Planned service({}, {.num_blocks = 32, .block_size = 4, .allocation = AllocationPolicy::pow2, .max_reservation = 64});
  SchedulerRequest group = request(1, 10, 5);
  group.num_samples = 2;
  service.submit(group);
  service.submit(request(2, 7, 3));
  service.next(2);
  // Outputs of 5 and 3 are reserved as 8 and 4. Computed are 11 of 15 tokens in two samples, and 8 of 10.
  CHECK(service.stats().slots_reserved == 2 * (15 - 11) + (10 - 8));
  CHECK(service.stats().slots_overreserved == 2 * 3 + 1);
  CHECK(service.stats().tokens_cached == 2 * 11 + 8);
  CHECK(service.stats().slots_unused == 2 * 1 + 0);
  service.finish();
  service.check_outputs();
}

TEST_CASE("moves that are lost make fallbacks, not preemptions") {
  Planned service({}, {.num_blocks = 16, .block_size = 4, .num_swap_blocks = 16});
  service.submit(request(1, 10, 12));
  service.next(2);
  service.executor.lose_every = 1;
  REQUIRE(service.swap(1));
  service.next();
  CHECK(service.stats().preemptions_swap == 1);
  CHECK(service.stats().swap_fallbacks == 1);
  CHECK(service.stats().preemptions_recompute == 0);
  service.executor.lose_every = 0;
  service.next(2);
  REQUIRE(service.swap(1));
  service.next();
  service.executor.lose_every = 1;
  service.next();  // on the way back
  CHECK(service.stats().preemptions_swap == 2);
  CHECK(service.stats().swap_fallbacks == 2);
  CHECK(service.stats().preemptions_recompute == 0);
  service.executor.lose_every = 0;
  service.finish();
  service.check_outputs();
}

TEST_CASE("rows of a request that is aborted in flight were computed all the same") {
  Planned service({}, {.num_blocks = 16, .block_size = 4});
  service.submit(request(1, 10, 12));
  service.submit(request(2, 7, 12));
  const StepPlan plan = service.scheduler.plan(0.0);
  CHECK(service.scheduler.abort(RequestId{1}));
  service.take_in(service.scheduler.commit(service.executor.run(plan)));
  CHECK(service.stats().tokens_computed == 17);
  CHECK(service.stats().tokens_sampled == 1);
  CHECK(service.stats().running == 1);
  service.finish();
}

TEST_CASE("a sample that ends with its first token is not forked") {
  Planned service({}, {.num_blocks = 128, .block_size = 4}, 3);
  SchedulerRequest group = request(1, 9, 6);
  group.num_samples = 16;
  service.submit(group);
  service.next();
  std::uint64_t going_on = 0, at_once = 0;
  for (std::uint32_t k = 1; k < 16; ++k) {
    ++(fake::expected_output(group, k, 3).size() > 1 ? going_on : at_once);
  }
  REQUIRE(at_once > 0);
  CHECK(service.stats().forks == going_on);
  service.finish();
  service.check_outputs();
}

TEST_CASE("of a preempted group every sample finds again the whole blocks that it left") {
  for (const int steps : {20, 21, 22, 23}) {
    Planned service({.max_batched_tokens = 256}, {.num_blocks = 128, .block_size = 4});
    SchedulerRequest group = request(1, 9, 40);
    group.num_samples = 3;
    service.submit(group);
    service.next(steps);
    const auto computed = static_cast<std::uint64_t>(9 + steps - 1);
    REQUIRE(service.scheduler.force_preempt(RequestId{1}));
    service.next(3);
    // The leader finds all; each of the others the blocks that were full.
    CHECK(service.stats().tokens_recomputed == 2 * (computed % 4));
    service.finish();
    service.check_outputs();
  }
}

TEST_CASE("fair: a tenant pays for the tokens of all beams") {
  Planned service({.max_sequences = 2, .order = ServiceOrder::fair, .prompt_weight = 0.0, .output_weight = 1.0},
                  {.num_blocks = 64, .block_size = 4});
  for (std::uint64_t id = 1; id <= 4; ++id) {  // two searches of the first tenant, two samples of the second
    SchedulerRequest made = request(id, 6, id <= 2 ? 4 : 3);
    made.beam_width = id <= 2 ? 2 : 0;
    made.tenant = id <= 2 ? 1 : 2;
    service.submit(made);
  }
  fake::Ids order;
  while (service.scheduler.has_work()) {
    for (const std::uint64_t id : fake::computed(service.next())) {
      if (std::ranges::find(order, id) == order.end()) order.push_back(id);
    }
  }
  CHECK(order == fake::Ids{1, 3, 4, 2});
  // A search samples two tokens in each of three steps, and ends with the fourth; a sample three.
  CHECK(service.stats().tokens_sampled == 2 * 6 + 2 * 3);
}
