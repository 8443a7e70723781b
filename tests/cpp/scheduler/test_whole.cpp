// Requests whose tokens see those behind them: computed in one step, and of no use to others.
#include <doctest/doctest.h>

#include <vector>

#include "pagedcore/error.hpp"
#include "planned.hpp"

using namespace pagedcore;
using fake::computed;
using fake::Ids;
using fake::Planned;
using fake::prompted;
using fake::with;

namespace {

SchedulerRequest whole(std::uint64_t id, std::uint32_t tokens, TokenId seed = 1) {
  SchedulerRequest request = prompted(id, with({}, tokens, seed), 0);
  request.is_whole = true;
  return request;
}

}  // namespace

// rule: scheduler.whole-leaves-nothing
TEST_CASE("a whole request is computed in one step, and nobody goes past it") {
  Planned service({.max_batched_tokens = 32, .max_sequences = 8}, {.num_blocks = 64, .block_size = 4});
  service.submit(whole(1, 20));
  service.submit(whole(2, 20, 2));
  service.submit(whole(3, 12, 3));
  service.submit(whole(4, 4, 4));
  const StepPlan first = service.next();
  CHECK(computed(first) == Ids{1});  // 2 has 20 rows, and 12 are left: 3 and 4 wait behind it
  CHECK(first.tokens.size() == 20);
  CHECK(computed(service.next()) == Ids{2, 3});
  CHECK(computed(service.next()) == Ids{4});
  CHECK_FALSE(service.scheduler.has_work());
}

// rule: scheduler.whole-leaves-nothing
TEST_CASE("a whole request finds nothing in the prefix cache, waits for nobody and leaves nothing there") {
  Planned service({.max_batched_tokens = 64, .max_sequences = 8}, {.num_blocks = 64, .block_size = 4});
  service.submit(whole(1, 16));
  service.submit(whole(2, 16));
  CHECK(computed(service.next()) == Ids{1, 2});  // the same tokens
  CHECK(service.scheduler.cache().counts().free == 64);
  SchedulerRequest causal = whole(3, 16);
  causal.is_whole = false;
  service.submit(causal);
  service.submit(whole(4, 16));
  service.submit(causal = prompted(5, causal.prompt, 0));
  CHECK(computed(service.next()) == Ids{3, 4});  // 5 waits for 3
  service.submit(whole(6, 16));
  const StepPlan last = service.next();
  CHECK(computed(last) == Ids{5, 6});
  CHECK(last.sequences[0].first_position == 15);
  CHECK(last.sequences[1].first_position == 0);
  CHECK(service.stats().prefix_hit_tokens == 15);
}

// rule: scheduler.whole-leaves-nothing
TEST_CASE("a whole request between those that generate has a step with room for it, and is not preempted") {
  Planned service({.max_batched_tokens = 16, .max_sequences = 8}, {.num_blocks = 64, .block_size = 4});
  service.submit(prompted(1, with({}, 8, 9), 3));
  service.next();
  service.submit(whole(2, 16));
  service.submit(prompted(3, with({}, 4, 8), 2));
  CHECK(computed(service.next()) == Ids{1});
  CHECK(computed(service.next()) == Ids{1});
  StepPlan plan = service.scheduler.plan(0.0);
  CHECK(computed(plan) == Ids{2});
  CHECK(service.scheduler.force_preempt(RequestId{2}, PreemptionMode::recompute));
  const auto updates = service.scheduler.commit(service.executor.run(plan));
  REQUIRE(updates.size() == 1);
  CHECK(updates[0].finish == FinishReason::length);
  service.finish();
  CHECK(service.stats().preemptions_recompute == 0);
  service.check_outputs();
}

TEST_CASE("what no step has room for, and what cannot be whole, is refused") {
  Planned service({.max_batched_tokens = 16}, {.num_blocks = 64, .block_size = 4});
  CHECK_THROWS_WITH_AS(service.scheduler.validate(whole(1, 17)),
                       "request 1: its 17 tokens see each other, so they are computed in one step, but a step has at "
                       "most 16 (max_batched_tokens); raise that to 17, or shorten the text",
                       InvalidArgument);
  SchedulerRequest generates = whole(1, 4);
  generates.max_tokens = 1;
  CHECK_THROWS_AS(service.scheduler.validate(generates), InvalidArgument);
  CHECK_THROWS_AS(service.scheduler.register_prefix(PrefixId{1}, whole(1, 4), false), InvalidArgument);
}
