// Requests of which a store has more than the cache: who asks, who waits, and what they are served with.
#include <doctest/doctest.h>

#include "planned.hpp"

using namespace pagedcore;
using fake::computed;
using fake::Ids;
using fake::Planned;
using fake::prompted;
using fake::with;

namespace {

std::vector<TokenId> prompt_of(TokenId first, std::size_t size) {
  std::vector<TokenId> tokens;
  for (std::size_t i = 0; i < size; ++i) tokens.push_back(static_cast<TokenId>((first + i) % 900));
  return tokens;
}

SchedulerRequest stored(std::uint64_t id, std::size_t size, std::uint32_t tokens) {
  SchedulerRequest request = prompted(id, prompt_of(static_cast<TokenId>(id * 50), size), 4);
  request.stored_tokens = tokens;
  return request;
}

}  // namespace

// rule: scheduler.store-is-asked-once
TEST_CASE("a request waits for its prefix once, lets others pass, and computes the rest") {
  Planned service({.max_batched_tokens = 4096}, {.num_blocks = 200, .block_size = 4});
  service.submit(stored(1, 30, 24));
  service.submit(stored(2, 10, 0));
  StepPlan plan = service.next();
  CHECK(plan.store_reads == std::vector{RequestId{1}});
  CHECK(computed(plan) == Ids{2});
  plan = service.next();
  CHECK(plan.store_reads.empty());
  CHECK(computed(plan) == Ids{2});
  const auto prompt = prompt_of(50, 24);
  CHECK(service.scheduler.import_prefix(prompt, 0, std::vector<std::uint8_t>(6, 1)).size() == 6);
  service.scheduler.check();
  service.scheduler.end_store_read(RequestId{1});
  plan = service.next();
  REQUIRE(plan.sequences.size() == 2);
  CHECK(plan.sequences[1].request == RequestId{1});
  CHECK(plan.sequences[1].first_position == 24);
  CHECK(plan.store_reads.empty());
  CHECK(service.stats().prefix_waits == 0);
}

TEST_CASE("nothing is asked for less than a block, or for what the cache has; an abort ends the wait") {
  Planned service({.max_batched_tokens = 4096}, {.num_blocks = 200, .block_size = 4});
  service.scheduler.import_prefix(prompt_of(50, 20), 0, std::vector<std::uint8_t>(5, 1));
  service.submit(stored(1, 30, 20));
  service.submit(stored(2, 4, 4));  // of four tokens three are of use
  service.submit(stored(3, 30, 28));
  StepPlan plan = service.next();
  CHECK(plan.store_reads == std::vector{RequestId{3}});
  CHECK(computed(plan) == Ids{1, 2});
  CHECK(service.scheduler.abort(RequestId{3}));
  service.scheduler.end_store_read(RequestId{3});  // too late, and harmless
  service.scheduler.check();
  service.finish();
}

TEST_CASE("alone, a request whose read gives nothing is computed") {
  Planned service({.max_batched_tokens = 4096}, {.num_blocks = 200, .block_size = 4});
  service.submit(stored(1, 30, 28));
  StepPlan plan = service.next();
  CHECK(plan.empty());
  CHECK(plan.store_reads == std::vector{RequestId{1}});
  CHECK(service.next().store_reads.empty());
  service.scheduler.end_store_read(RequestId{1});
  plan = service.next();
  REQUIRE(plan.sequences.size() == 1);
  CHECK(plan.sequences[0].num_rows == 30);
}
