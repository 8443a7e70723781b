// Requests that wait until another one has computed their prefix: how many a plan passes, for whom they wait, and what
// is found where prefixes are registered.
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

/// A request that computes `common`, `count` that wait for it, and one of another prompt behind them.
struct Crowd {
  Crowd(std::uint64_t count, bool registered, std::uint32_t max_sequences = 1000)
      : service({.max_batched_tokens = 4096, .max_sequences = max_sequences}, {.num_blocks = 8000, .block_size = 4}) {
    const std::vector<TokenId> common(32, 7);
    SchedulerRequest first = prompted(1, registered ? common : with(common, 4, 1), registered ? 0 : 4);
    if (registered) {
      service.scheduler.register_prefix(PrefixId{1}, first);
      service.requests[1] = first;
    } else {
      service.submit(first);
    }
    for (std::uint64_t i = 0; i < count; ++i) {
      SchedulerRequest waiting = prompted(10 + i, with(common, 4, static_cast<TokenId>(10 + i)), 2);
      if (registered) waiting.prefix = PrefixId{1};
      service.submit(waiting);
    }
    service.submit(prompted(5000, with({}, 8, 3), 2));
    service.requests.at(5000).arrival = 5000;
  }
  Planned service;
};

}  // namespace

// rule: scheduler.walk-is-bounded
TEST_CASE("a plan passes 63 requests that wait for a prefix, and stops at the 64th") {
  for (const std::uint64_t count : {63u, 64u, 100u}) {
    CAPTURE(count);
    Crowd crowd(count, false);
    CHECK(computed(crowd.service.next()) == (count < 64 ? Ids{1, 5000} : Ids{1}));
    CHECK(crowd.service.stats().prefix_waits == std::min<std::uint64_t>(count, 64));
    CHECK(computed(crowd.service.next()).size() == count + 2);
    crowd.service.finish();
    crowd.service.check_outputs();
  }
}

TEST_CASE("those who wait for a registered prefix do not count: that is computed before all others") {
  Crowd crowd(100, true);
  CHECK(computed(crowd.service.next()) == Ids{1, 5000});
  CHECK(crowd.service.stats().prefix_waits == 100);
  while (crowd.service.scheduler.has_work()) crowd.service.next();
  crowd.service.check_outputs();
}

TEST_CASE("one that waits twice is counted once") {
  Planned service({.max_batched_tokens = 4096}, {.num_blocks = 200, .block_size = 4});
  const std::vector<TokenId> common(32, 7), longer = with(common, 32, 8);
  service.submit(prompted(1, with(common, 4, 1), 8));
  service.submit(prompted(2, with(longer, 4, 2), 8));
  service.submit(prompted(3, with(longer, 4, 3), 8));
  CHECK(computed(service.next()) == Ids{1});
  CHECK(computed(service.next()) == Ids{1, 2});  // the third waits again, for the second
  CHECK(computed(service.next()) == Ids{1, 2, 3});
  CHECK(service.stats().prefix_waits == 2);
  CHECK(service.stats().prefix_hit_tokens == 32 + 64);
  service.finish();
  service.check_outputs();
}

TEST_CASE("nobody waits for one of a lower priority") {
  for (const std::int32_t priority : {0, 1}) {
    Planned service({.max_batched_tokens = 64, .order = ServiceOrder::priority}, {.num_blocks = 200, .block_size = 4});
    const std::vector<TokenId> common(100, 7);
    service.submit(prompted(1, with(common, 4, 1), 4));
    service.next();
    SchedulerRequest second = prompted(2, with(with({}, 80, 7), 4, 2), 4);
    second.priority = priority;
    service.submit(second);
    const StepPlan plan = service.next();
    CHECK(computed(plan) == (priority > 0 ? Ids{2, 1} : Ids{1}));
    CHECK(service.stats().prefix_waits == (priority > 0 ? 0 : 1));
    service.finish();
    service.check_outputs();
  }
}

TEST_CASE("a registered prefix spares no prompt row that is to be scored, and is not waited for") {
  for (const bool is_there : {false, true}) {
    Planned service({}, {.num_blocks = 64, .block_size = 4});
    const SchedulerRequest prefix = request(9, 16, 0);
    service.scheduler.register_prefix(PrefixId{1}, prefix);
    service.requests[9] = prefix;
    if (is_there) service.next();
    SchedulerRequest scored = prompted(10, with(prefix.prompt, 4, 5), 2);
    scored.prefix = PrefixId{1};
    scored.prompt_logprobs = true;
    service.submit(scored);
    const StepPlan plan = service.next();
    REQUIRE(plan.sequences.size() == (is_there ? 1 : 2));
    CHECK(raw(plan.sequences.back().request) == 10);
    CHECK(plan.sequences.back().first_position == 0);
    CHECK(plan.sequences.back().num_rows == 20);
    CHECK(plan.sequences.back().num_scored == 19);
    CHECK(service.stats().pinned_hit_tokens == 0);
    CHECK(service.stats().prefix_waits == 0);
    while (service.scheduler.has_work()) service.next();
    service.check_outputs();
  }
}

// The first is preempted, and one of a higher priority computes what it begins with. When its prompt has been scored it
// waits for that, like anybody, and lets the third pass; when it is still to be scored it comes in and computes it.
TEST_CASE("one whose prompt rows are scored waits for a prefix when it comes back; before that it does not") {
  for (const bool is_scored : {true, false}) {
    CAPTURE(is_scored);
    Planned service({.max_batched_tokens = 24, .order = ServiceOrder::priority}, {.num_blocks = 64, .block_size = 4});
    const std::vector<TokenId> common(40, 7);
    SchedulerRequest first = prompted(1, common, 8);
    first.prompt_logprobs = true;
    service.submit(first);
    service.next(is_scored ? 2 : 1);
    REQUIRE(service.samples[{1, 0}].size() == (is_scored ? 1 : 0));
    REQUIRE(service.scheduler.force_preempt(RequestId{1}));
    service.scheduler.clear_prefix_cache();
    SchedulerRequest second = prompted(2, with(common, 1, 8), 2);
    second.priority = 1;
    service.submit(second);
    service.next();
    service.submit(request(3, 2, 2));
    const StepPlan plan = service.next();
    CHECK(computed(plan) == (is_scored ? Ids{2, 3} : Ids{2, 1}));
    CHECK(service.stats().prefix_waits == (is_scored ? 1 : 0));
    service.finish();
    service.check_outputs();
  }
}

// rule: scheduler.prefix-is-pinned
TEST_CASE("a registered prefix is forked, not held twice, where the cache knows its tokens by other blocks") {
  Planned service({}, {.num_blocks = 64, .block_size = 4});
  const std::vector<TokenId> tokens(16, 7);
  service.submit(prompted(1, tokens, 0));
  service.next();
  // Of the prefix the last block is a copy, since its last row is computed; the cache goes on knowing the other one.
  const SchedulerRequest prefix = prompted(2, tokens, 0);
  service.scheduler.register_prefix(PrefixId{1}, prefix);
  service.requests[2] = prefix;
  service.next();
  REQUIRE(service.stats().prefixes == 1);
  REQUIRE(service.scheduler.cache().counts().used == 4);
  SchedulerRequest user = prompted(3, with(tokens, 4, 5), 2);
  user.prefix = PrefixId{1};
  service.submit(user);
  service.next();
  CHECK(service.scheduler.cache().counts().used == 5);
  CHECK(service.stats().pinned_hit_tokens == 16);
  while (service.scheduler.has_work()) service.next();
  service.check_outputs();
}

TEST_CASE("a prompt that is a registered prefix computes its last row, whatever the windows have passed") {
  for (std::uint32_t window = 2; window <= 20; ++window) {
    Planned service({}, {.num_blocks = 64, .block_size = 4, .windows = {window}});
    const SchedulerRequest prefix = request(9, 16, 0);
    service.scheduler.register_prefix(PrefixId{1}, prefix);
    service.requests[9] = prefix;
    service.next();
    SchedulerRequest user = prompted(1, prefix.prompt, 4);
    user.prefix = PrefixId{1};
    service.submit(user);
    while (service.scheduler.has_work()) service.next();
    service.check_outputs();
  }
}

TEST_CASE("fair: what the cache spares a tenant is not charged") {
  Planned service({.max_sequences = 1, .order = ServiceOrder::fair, .prompt_weight = 1.0, .output_weight = 0.0},
                  {.num_blocks = 64, .block_size = 4});
  const auto submit = [&](std::uint64_t id, std::uint64_t tenant, TokenId token) {
    SchedulerRequest made = prompted(id, with({}, 33, token), 1);
    made.tenant = tenant;
    service.submit(made);
  };
  // The first tenant asks the same again and again, of which 32 tokens are found; the second never.
  submit(1, 1, 7), submit(2, 2, 20), submit(3, 1, 7), submit(4, 2, 21), submit(5, 2, 22), submit(6, 1, 7);
  submit(7, 1, 7);
  Ids order;
  while (service.scheduler.has_work()) {
    for (const std::uint64_t id : computed(service.next())) order.push_back(id);
  }
  CHECK(order == Ids{1, 2, 3, 4, 6, 7, 5});
  service.check_outputs();
}
