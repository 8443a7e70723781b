// Requests that arrive together and begin alike: what they have in common is computed once.
#include <doctest/doctest.h>

#include <map>
#include <vector>

#include "fake_executor.hpp"

using namespace pagedcore;

namespace {

struct Outcome {
  SchedulerStats stats;
  std::map<std::uint64_t, std::vector<TokenId>> outputs;
  std::map<std::uint64_t, std::uint64_t> last_step;  // of each request
};

Outcome serve(const std::vector<SchedulerRequest>& requests, const SchedulerConfig& config,
              const KvCacheConfig& cache) {
  Scheduler scheduler(config, cache);
  fake::Executor executor(cache, 0);
  Outcome outcome;
  for (const SchedulerRequest& request : requests) scheduler.submit(request);
  for (std::uint64_t step = 1; scheduler.has_work(); ++step) {
    REQUIRE(step < 10000);
    const StepPlan plan = scheduler.plan(0.0);
    scheduler.check();
    REQUIRE(!plan.empty());
    for (const SampleUpdate& update : scheduler.commit(executor.run(plan))) {
      outcome.outputs[raw(update.request)].push_back(update.token);
      outcome.last_step[raw(update.request)] = step;
    }
    scheduler.check();
  }
  outcome.stats = scheduler.stats();
  return outcome;
}

/// `count` prompts of `common` equal tokens and `own` further ones.
std::vector<SchedulerRequest> alike(std::uint64_t count, std::uint32_t common, std::uint32_t own) {
  std::vector<SchedulerRequest> requests;
  for (std::uint64_t i = 1; i <= count; ++i) {
    SchedulerRequest request{.id = RequestId{i}, .arrival = 0.0, .prompt = {}};
    for (std::uint32_t t = 0; t < common; ++t) request.prompt.push_back(static_cast<TokenId>(t % 5));
    for (std::uint32_t t = 0; t < own; ++t) request.prompt.push_back(static_cast<TokenId>(10 + i));
    request.max_tokens = 4;
    requests.push_back(std::move(request));
  }
  return requests;
}

}  // namespace

TEST_CASE("32 requests with a common prefix of 512 tokens compute it once") {
  const auto requests = alike(32, 512, 10);
  for (const std::uint32_t rows : {64u, 512u, 4096u, 100000u}) {
    const Outcome found = serve(requests, {.max_batched_tokens = rows}, {.num_blocks = 2000});
    CHECK(found.stats.tokens_computed == 512 + 32 * (10 + 3));  // the last token's KV is never computed
    CHECK(found.stats.prefix_hit_tokens == 31 * 512);
    if (rows > 600) CHECK(found.stats.prefix_waits == 31);
    for (const SchedulerRequest& request : requests) {
      CHECK(found.outputs.at(raw(request.id)) == fake::expected_output(request, 0, 0));
    }
  }
}

// rule: scheduler.running-first
TEST_CASE("who waits lets others pass, and is delayed by no more than the computation it is spared") {
  std::vector<SchedulerRequest> requests = alike(3, 160, 8);
  SchedulerRequest other{.id = RequestId{9}, .arrival = 1.0, .prompt = {}};
  other.prompt.assign(40, 77);
  other.max_tokens = 4;
  requests.push_back(other);
  const Outcome found = serve(requests, {.max_batched_tokens = 1000}, {.num_blocks = 200});
  CHECK(found.last_step.at(1) == 4);
  CHECK(found.last_step.at(2) == 5);
  CHECK(found.last_step.at(3) == 5);
  CHECK(found.last_step.at(9) == 4);
}

TEST_CASE("other tenants, other prompts and a cache that is off wait for nobody") {
  auto tenants = alike(4, 64, 4);
  for (SchedulerRequest& request : tenants) request.salt = raw(request.id);
  CHECK(serve(tenants, {.max_batched_tokens = 4096}, {.num_blocks = 200}).stats.prefix_waits == 0);
  const KvCacheConfig off{.num_blocks = 200, .block_size = 16, .enable_prefix_caching = false};
  CHECK(serve(alike(4, 64, 4), {.max_batched_tokens = 4096}, off).stats.prefix_waits == 0);
  // Less than a block in common.
  CHECK(serve(alike(4, 15, 40), {.max_batched_tokens = 4096}, {.num_blocks = 200}).stats.prefix_waits == 0);
}

TEST_CASE("waiting and preemption together get everybody through") {
  const auto requests = alike(20, 48, 20);
  const Outcome found = serve(requests, {.max_batched_tokens = 200}, {.num_blocks = 8});
  for (const SchedulerRequest& request : requests) {
    CHECK(found.outputs.at(raw(request.id)) == fake::expected_output(request, 0, 0));
  }
}
