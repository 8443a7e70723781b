// The watermark: blocks that whoever comes in beside others leaves free, by whatever way it comes in.
#include <doctest/doctest.h>

#include <vector>

#include "service.hpp"

using namespace pagedcore;
using fake::request;
using fake::Service;

namespace {

constexpr std::uint32_t kBlocks = 32, kWatermark = 8;  // a quarter

/// Beside a request of 15 tokens that runs since the step before.
bool comes_in(const SchedulerRequest& newcomer, double watermark, AdmissionPolicy admission) {
  Service service({.watermark = watermark, .admission = admission}, {.num_blocks = kBlocks, .block_size = 4});
  service.submit(request(1, 15, 4));
  service.step();
  service.submit(newcomer);
  service.step();
  const std::uint32_t running = service.scheduler.stats().running;
  service.finish();
  return running == 2;
}

}  // namespace

// rule: scheduler.admission-leaves-room
TEST_CASE("an admission leaves the watermark free, to the block") {
  // The first holds 4 blocks and, but by the paper's rule, is promised one for its next token.
  const auto check = [](double watermark, AdmissionPolicy admission, std::uint32_t longest) {
    CAPTURE(watermark);
    CHECK(comes_in(request(2, longest, 8), watermark, admission));
    CHECK_FALSE(comes_in(request(2, longest + 1, 8), watermark, admission));
  };
  check(0.0, AdmissionPolicy::known, 4 * (kBlocks - 4 - 1) - 1);
  check(0.25, AdmissionPolicy::known, 4 * (kBlocks - 4 - 1 - kWatermark) - 1);
  check(0.0, AdmissionPolicy::watermark, 4 * (kBlocks - 4));
  check(0.25, AdmissionPolicy::watermark, 4 * (kBlocks - 4 - kWatermark));
  // All that it and the first may come to hold: 18 and prompt + 7 slots; and no watermark.
  for (const double watermark : {0.0, 0.25}) {
    check(watermark, AdmissionPolicy::never_evict, 4 * (kBlocks - 5) - 7);
  }
}

TEST_CASE("one that finds its beginning in the cache leaves the watermark free too") {
  for (const bool registered : {false, true}) {
    for (const std::uint32_t watermark : {0u, 10u, 11u}) {
      CAPTURE(registered);
      CAPTURE(watermark);
      Service service({.watermark = (watermark + 0.5) / 24}, {.num_blocks = 24, .block_size = 4});
      const SchedulerRequest prefix = request(9, 16, 0);
      service.requests[9] = prefix;
      if (registered) {
        service.scheduler.register_prefix(PrefixId{1}, prefix);
      } else {
        service.submit(prefix);
      }
      service.step();
      service.submit(request(1, 21, 4));
      service.step();
      SchedulerRequest newcomer = request(2, 0, 3);
      newcomer.prompt = prefix.prompt;
      newcomer.prompt.resize(30, 7);
      if (registered) newcomer.prefix = PrefixId{1};
      service.submit(newcomer);
      service.step();
      // Of 24 blocks the prefix takes 4, the first request 6 and what is new of this one 4.
      const bool fits = watermark <= 10;
      CHECK((service.scheduler.stats().running == 2) == fits);
      CHECK(service.scheduler.stats().prefix_hit_tokens + service.scheduler.stats().pinned_hit_tokens ==
            (fits ? 16 : 0));
    }
  }
}

// rule: scheduler.swapped-come-back-like-new
TEST_CASE("one that comes back from the swap space leaves the watermark free") {
  for (const std::uint32_t watermark : {0u, 3u, 4u, 5u}) {
    CAPTURE(watermark);
    Service service({.watermark = (watermark + 0.5) / 20, .preemption = PreemptionMode::swap},
                    {.num_blocks = 20, .block_size = 4, .num_swap_blocks = 20});
    service.submit(request(1, 8, 40));
    service.submit(request(2, 15, 40));
    for (int i = 0; i < 17; ++i) service.step();
    REQUIRE(service.scheduler.force_preempt(RequestId{2}, PreemptionMode::swap));
    service.step();
    REQUIRE(service.scheduler.cache().counts().swapped == 8);
    service.step();
    // The first has 26 tokens in 7 blocks; the other one needs its 8, and one for the next token: 4 are left of 20.
    REQUIRE(service.scheduler.cache().length(SequenceId{1}) == 26);
    CHECK((service.scheduler.stats().swapped == 0) == (watermark <= 4));
    service.finish();
  }
}

TEST_CASE("the watermark is waived with nothing running, and for those who run") {
  Service service({.watermark = 1.0}, {.num_blocks = 8, .block_size = 4});
  service.submit(request(1, 15, 16));
  service.submit(request(2, 2, 2));
  service.step();
  CHECK(service.scheduler.stats().running == 1);
  while (service.scheduler.stats().running == 1 && service.scheduler.stats().waiting == 1) service.step();
  CHECK(service.scheduler.stats().preemptions_recompute == 0);
  CHECK(service.samples[{1, 0}].size() == 16);
  service.finish();
}

TEST_CASE("for a higher priority as many make way in one step as leave the watermark free") {
  for (const bool watermark : {false, true}) {
    Service service(
        {.watermark = watermark ? 0.25 : 0.0, .order = ServiceOrder::priority, .victim = VictimPolicy::last_arrival},
        {.num_blocks = 24, .block_size = 4, .enable_prefix_caching = false});
    for (std::uint64_t id = 1; id <= 3; ++id) service.submit(request(id, 13, 3));  // 4 blocks each
    service.step();
    REQUIRE(service.scheduler.stats().running == 3);
    SchedulerRequest high = request(9, 46, 8);
    high.priority = 5;
    service.submit(high);
    const StepPlan plan = service.scheduler.plan(0.0);
    // It wants 12 blocks, and there are 12. For 6 more two have to go.
    CHECK(plan.preempted.size() == (watermark ? 2 : 0));
    if (!plan.empty()) service.scheduler.commit(service.executor.run(plan));
    service.finish();
  }
}

TEST_CASE("and for one of a higher priority that comes back from the swap space") {
  for (const bool watermark : {false, true}) {
    Service service(
        {.watermark = watermark ? 0.25 : 0.0, .order = ServiceOrder::priority, .victim = VictimPolicy::last_arrival},
        {.num_blocks = 48, .block_size = 4, .enable_prefix_caching = false, .num_swap_blocks = 48});
    SchedulerRequest high = request(9, 24, 20);
    high.priority = 5;
    service.submit(high);
    for (std::uint64_t id = 1; id <= 8; ++id) service.submit(request(id, 5, 20));
    for (int i = 0; i < 9; ++i) service.step();
    REQUIRE(service.scheduler.stats().running == 9);
    REQUIRE(service.scheduler.force_preempt(RequestId{9}, PreemptionMode::swap));
    service.step();
    REQUIRE(service.scheduler.stats().swapped == 1);
    const StepPlan plan = service.scheduler.plan(0.0);
    // It wants 9 blocks; 16 are free. With 12 to be left, two of the others go, of 4 blocks each.
    CHECK(plan.preempted.size() == (watermark ? 2 : 0));
    if (!plan.empty()) service.scheduler.commit(service.executor.run(plan));
    service.finish();
  }
}
