// What running requests are promised: an admission leaves them the blocks of their next tokens, also those of samples
// that have not started or that wait for their turn.
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
using fake::with;

namespace {

SchedulerRequest group(std::uint64_t id, std::uint32_t prompt, std::uint32_t samples, std::uint32_t max_tokens) {
  SchedulerRequest made = request(id, prompt, max_tokens);
  made.num_samples = samples;
  return made;
}

}  // namespace

TEST_CASE("samples that have not started are promised their blocks") {
  for (const std::uint32_t blocks : {11u, 10u}) {
    Planned service({.max_batched_tokens = 16, .watermark = 0}, {.num_blocks = blocks, .block_size = 4});
    service.submit(group(1, 20, 3, 4));
    CHECK(computed(service.next()) == Ids{1});
    // The rest of the prompt takes a fifth block, and each of the three a block of its own; the other request 3.
    service.submit(request(2, 8, 4));
    CHECK(computed(service.next()) == (blocks == 11 ? Ids{1, 2} : Ids{1}));
    service.finish();
    service.check_outputs();
  }
}

TEST_CASE("a group that waits for the rows to compute all its samples is promised their blocks") {
  for (const std::uint32_t blocks : {13u, 12u}) {
    Planned service({.max_batched_tokens = 4, .watermark = 0}, {.num_blocks = blocks, .block_size = 4});
    service.submit(group(1, 8, 2, 12));
    service.submit(group(2, 8, 3, 4));
    service.next(6);
    REQUIRE(service.stats().tokens_sampled == 2 + 4 * 2 + 3);
    service.submit(request(3, 4, 4));
    // The first goes on with 2 rows and 6 blocks. The second would need 3 rows, and a block for each of its samples.
    CHECK(computed(service.next()) == (blocks == 13 ? Ids{1, 3} : Ids{1}));
    service.finish();
    service.check_outputs();
  }
}

TEST_CASE("adaptive: what one found in the cache does not come free when it ends") {
  for (const std::uint32_t blocks : {75u, 62u}) {
    Planned service({.watermark = 0, .admission = AdmissionPolicy::adaptive}, {.num_blocks = blocks, .block_size = 4});
    const std::vector<TokenId> common(40, 7);
    service.submit(prompted(1, with(common, 4, 1), 100));
    service.next();
    service.submit(prompted(2, with(common, 4, 2), 4));
    service.next();
    REQUIRE(service.stats().prefix_hit_tokens == 40);
    // The first will hold 36 blocks and the third 30. The second gives back one of its 11.
    service.submit(prompted(3, with({}, 20, 3), 100));
    CHECK(computed(service.next()) == (blocks == 75 ? Ids{1, 2, 3} : Ids{1, 2}));
    service.finish();
    service.check_outputs();
  }
}

TEST_CASE("one that finds no slots to be swapped out to is recomputed, and counted as such") {
  Planned service({.watermark = 0, .preemption = PreemptionMode::swap},
                  {.num_blocks = 8, .block_size = 4, .num_swap_blocks = 3});
  service.submit(request(1, 14, 12));
  service.submit(request(2, 14, 12));
  StepPlan plan;
  do {
    plan = service.next();
  } while (plan.preempted.empty());
  CHECK(preempted(plan) == Ids{2});
  CHECK(service.stats().swap_fallbacks == 1);
  CHECK(service.stats().preemptions_recompute == 1);
  CHECK(service.stats().preemptions_swap == 0);
  CHECK(service.scheduler.cache().counts().swapped == 0);
  service.finish();
  service.check_outputs();
}
