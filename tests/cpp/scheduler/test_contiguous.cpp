// The baselines of PagedAttention, section 6.1, under the same scheduler: reserved on admission, never preempted.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "pagedcore/error.hpp"
#include "service.hpp"

using namespace pagedcore;
using fake::Service;

namespace {

KvCacheConfig cache_of(AllocationPolicy allocation, std::uint32_t blocks, std::uint32_t block_size,
                       std::uint32_t longest) {
  KvCacheConfig config;
  config.num_blocks = blocks;
  config.block_size = block_size;
  config.allocation = allocation;
  config.max_reservation = longest;
  return config;
}

SchedulerRequest request_of(std::uint64_t id, std::size_t prompt, std::uint32_t max_tokens) {
  SchedulerRequest request{.id = RequestId{id}, .arrival = static_cast<double>(id), .prompt = {}};
  for (std::size_t i = 0; i < prompt; ++i) request.prompt.push_back(static_cast<TokenId>((id * 7 + i * i) % 4));
  request.max_tokens = max_tokens;
  return request;
}

}  // namespace

TEST_CASE("under Orca (Max) 15,728 slots run seven requests at a time, in order") {
  Service service({.max_batched_tokens = 2560}, cache_of(AllocationPolicy::max, 983, 16, 2048));
  for (std::uint64_t id = 1; id <= 20; ++id) service.submit(request_of(id, 5 + id, 3));
  std::uint32_t most = 0;
  while (service.scheduler.has_work()) {
    REQUIRE(service.step());
    most = std::max(most, service.scheduler.stats().running);
  }
  CHECK(most == 7);
}

// rule: scheduler.chunks-are-never-taken
TEST_CASE("samples and beams of all policies come out as they do alone, without a preemption") {
  std::mt19937 random(11);
  for (const AllocationPolicy policy : {AllocationPolicy::max, AllocationPolicy::pow2, AllocationPolicy::oracle}) {
    CAPTURE(static_cast<int>(policy));
    const std::uint64_t stop_every = 9;
    Service service({.max_batched_tokens = 24, .max_sequences = 12}, cache_of(policy, 61, 4, 32), stop_every);
    std::map<std::uint64_t, SchedulerRequest> all;
    std::uint64_t next = 1;
    for (int steps = 0; steps < 3000 || service.scheduler.has_work(); ++steps) {
      REQUIRE(steps < 20000);
      if (steps < 3000 && random() % 4 == 0) {
        SchedulerRequest request = request_of(next, 1 + random() % 14, 1 + random() % 16);
        if (random() % 3 == 0) request.num_samples = 1 + random() % 4;
        if (random() % 3 == 0 && request.num_samples == 1) request.beam_width = 1 + random() % 4;
        service.submit(request);
        all[next++] = request;
      }
      if (random() % 40 == 0 && next > 1) {
        const std::uint64_t id = 1 + random() % (next - 1);
        if (service.scheduler.abort(RequestId{id})) all.erase(id);
      }
      if (random() % 30 == 0 && next > 1) service.scheduler.force_preempt(RequestId{1 + random() % (next - 1)});
      service.step();
    }
    CHECK(service.scheduler.cache().counts().used == 0);
    CHECK(service.scheduler.cache().counts().reserved == 0);
    CHECK(all.size() > 300);
    for (const auto& [id, request] : all) {
      CAPTURE(id);
      if (request.beam_width > 0) {
        REQUIRE(service.beams[id] == fake::expected_beams(request));
        continue;
      }
      for (std::uint32_t k = 0; k < request.num_samples; ++k) {
        REQUIRE(service.samples[{id, k}] == fake::expected_output(request, k, stop_every));
      }
    }
  }
}

TEST_CASE("the wastes of the paper's figure 3") {
  // A: 7 prompt tokens, 1 generated, 2 to come, a reservation of 2048.
  Service service({}, cache_of(AllocationPolicy::max, 128, 16, 2048));
  service.submit(request_of(1, 7, 3));
  service.step();
  service.step();
  const SchedulerStats stats = service.scheduler.stats();
  CHECK(stats.tokens_cached == 8);
  CHECK(stats.slots_reserved == 2);
  CHECK(stats.slots_overreserved == 2038);
  // B: 3 prompt tokens, 1 generated, 1 to come, a reservation of 512.
  Service other({}, cache_of(AllocationPolicy::max, 32, 16, 512));
  other.submit(request_of(1, 3, 2));
  other.step();
  other.scheduler.plan(0.0);  // its slot is taken
  const SchedulerStats more = other.scheduler.stats();
  CHECK(more.tokens_cached == 4);
  CHECK(more.slots_reserved == 1);
  CHECK(more.slots_overreserved == 507);
}

TEST_CASE("requests that no empty contiguous cache could hold are refused with the arithmetic") {
  Scheduler scheduler({}, cache_of(AllocationPolicy::max, 300, 16, 2048));
  CHECK_THROWS_WITH_AS(scheduler.submit(request_of(1, 2000, 49)), doctest::Contains("make 2049"), InvalidArgument);
  SchedulerRequest three = request_of(2, 5, 5);
  three.num_samples = 3;
  CHECK_THROWS_WITH_AS(scheduler.submit(three), doctest::Contains("has 2 such chunks"), InvalidArgument);
  CHECK_THROWS_AS(scheduler.register_prefix(PrefixId{1}, request_of(3, 5, 0)), InvalidArgument);
  CHECK_FALSE(scheduler.has_work());
}
