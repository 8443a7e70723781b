// A step in flight: what it reads is handed to nobody before it is over.
#include <doctest/doctest.h>

#include <set>
#include <vector>

#include "planned.hpp"

using namespace pagedcore;
using fake::Ids;
using fake::Planned;
using fake::prompted;
using fake::request;
using fake::with;

TEST_CASE("a block that its last owner copies from is nobody's in the same step") {
  // Layers with a window beside others with none: a sample that was forked from one far ahead of it shares its last
  // block in one group only. In its next step it copies both, and takes further blocks.
  std::uint32_t last_owners = 0;
  for (std::uint32_t prompt = 5; prompt <= 11; ++prompt) {
    Planned service({.max_batched_tokens = 32}, {.num_blocks = 96, .block_size = 4, .windows = {0, 8}});
    SchedulerRequest pair = request(1, prompt, 40);
    pair.num_samples = 2;
    service.submit(pair);
    service.next(24);
    REQUIRE(service.scheduler.force_preempt(RequestId{1}));
    while (service.scheduler.has_work()) {
      std::vector<std::uint32_t> before;
      for (std::uint32_t block = 0; block < 96; ++block)
        before.push_back(service.scheduler.cache().references(BlockId{block}));
      const StepPlan plan = service.scheduler.plan(0.0);
      std::set<BlockId> written;
      for (const BlockCopy& copy : plan.copies) written.insert(copy.dst);
      for (const BlockCopy& copy : plan.copies) {
        CHECK_FALSE(written.contains(copy.src));
        if (before[raw(copy.src)] != 1) continue;
        ++last_owners;
        CHECK(service.scheduler.cache().references(copy.src) == 0);
      }
      service.take_in(service.scheduler.commit(service.executor.run(plan)));
    }
    service.check_outputs();
  }
  CHECK(last_owners > 0);
}

// rule: scheduler.prefix-is-pinned
TEST_CASE("a registered prefix that goes with its last user waits for the step that reads it") {
  // 18 tokens: the user shares four blocks, and copies the fifth in its step.
  Planned service({}, {.num_blocks = 64, .block_size = 4});
  const SchedulerRequest prefix = request(9, 18, 0);
  service.scheduler.register_prefix(PrefixId{1}, prefix);
  service.requests[9] = prefix;
  service.next();
  SchedulerRequest user = prompted(1, with(prefix.prompt, 2, 5), 8);
  user.prefix = PrefixId{1};
  service.submit(user);
  const StepPlan plan = service.scheduler.plan(0.0);
  REQUIRE(plan.copies.size() == 1);
  service.scheduler.release_prefix(PrefixId{1});
  CHECK(service.stats().prefixes == 1);  // in use
  CHECK(service.scheduler.cache().counts().used == 6);
  CHECK(service.scheduler.abort(RequestId{1}));
  CHECK(service.stats().prefixes == 0);
  CHECK(service.scheduler.cache().counts().in_flight == 6);
  CHECK(service.scheduler.cache().available() == 64 - 6);
  service.take_in(service.scheduler.commit(service.executor.run(plan)));
  CHECK(service.scheduler.cache().counts().in_flight == 0);
  CHECK(service.scheduler.cache().available() == 64);
}

// rule: scheduler.end-behind-the-step
TEST_CASE("all sequences of a request that is aborted wait for the step in flight") {
  Planned service({}, {.num_blocks = 64, .block_size = 4});
  SchedulerRequest group = request(1, 6, 8);
  group.num_samples = 3;
  service.submit(group);
  service.next();
  const StepPlan plan = service.scheduler.plan(0.0);
  const std::uint32_t used = service.scheduler.cache().counts().used;
  CHECK(service.scheduler.abort(RequestId{1}));
  CHECK(service.scheduler.cache().counts().in_flight == used);
  CHECK(service.scheduler.cache().available() == 64 - used);
  service.take_in(service.scheduler.commit(service.executor.run(plan)));
  CHECK(service.scheduler.cache().available() == 64);
}

TEST_CASE("one that is preempted by force is named by the next plan, also when a step was in flight") {
  for (const bool in_flight : {false, true}) {
    Planned service({}, {.num_blocks = 64, .block_size = 4});
    service.submit(request(1, 6, 8));
    service.submit(request(2, 6, 8));
    service.next();
    const StepPlan plan = service.scheduler.plan(0.0);
    if (in_flight) REQUIRE(service.scheduler.force_preempt(RequestId{1}));
    service.take_in(service.scheduler.commit(service.executor.run(plan)));
    if (!in_flight) REQUIRE(service.scheduler.force_preempt(RequestId{1}));
    CHECK(service.stats().preemptions_recompute == 1);
    CHECK(service.stats().running == 1);
    CHECK(fake::preempted(service.next()) == Ids{1});
    CHECK(fake::preempted(service.next()).empty());
    service.finish();
    service.check_outputs();
  }
}
