// A plan into the memory of the one before says what a new one says.
#include <doctest/doctest.h>

#include <string>

#include "pagedcore/error.hpp"
#include "pagedcore/trace.hpp"
#include "service.hpp"

using namespace pagedcore;

namespace {

SchedulerRequest request(std::uint64_t id, std::size_t prompt, std::uint32_t max_tokens) {
  SchedulerRequest request;
  request.id = RequestId{id};
  request.prompt.assign(prompt, static_cast<TokenId>(id));
  request.max_tokens = max_tokens;
  return request;
}

}  // namespace

TEST_CASE("a kept plan holds nothing of the plans before, swaps and windows included") {
  KvCacheConfig paged{.num_blocks = 20, .block_size = 4, .num_swap_blocks = 12};
  KvCacheConfig windows = paged;
  windows.num_blocks = 40;
  windows.windows = {0, 6};
  for (const KvCacheConfig& cache : {paged, windows}) {
    const SchedulerConfig config{.max_batched_tokens = 24, .max_sequences = 8};
    Scheduler fresh(config, cache), keeping(config, cache);
    fake::Executor executor(cache, 9);
    StepPlan kept;
    std::uint64_t id = 0, smaller = 0, swaps = 0, last = 0;
    for (int step = 0; step < 300; ++step) {
      if (step % 3 == 0 && step < 200) {
        ++id;
        SchedulerRequest made = request(id, 1 + id * 5 % 17, static_cast<std::uint32_t>(2 + id * 7 % 13));
        made.num_samples = static_cast<std::uint32_t>(1 + id % 3);
        fresh.submit(made);
        keeping.submit(made);
      }
      if (step % 5 == 4) {
        REQUIRE(fresh.force_preempt(RequestId{id}, PreemptionMode::swap) ==
                keeping.force_preempt(RequestId{id}, PreemptionMode::swap));
      }
      const StepPlan plan = fresh.plan(0.0);
      keeping.plan(0.0, kept);
      REQUIRE(to_text(kept) == to_text(plan));
      REQUIRE(kept.table_entries == plan.table_entries);
      smaller += plan.sequences.size() < last;
      last = plan.sequences.size();
      swaps += plan.swap_outs.size() + plan.swap_ins.size();
      if (plan.empty()) continue;
      const StepResult result = executor.run(plan);
      fresh.commit(result);
      keeping.commit(result);
    }
    CHECK_FALSE(fresh.has_work());
    CHECK(smaller > 20);
    CHECK(swaps > 0);
  }
}

TEST_CASE("a kept plan stays where it is in memory, and as it was when planning is refused") {
  fake::Service service({}, {.num_blocks = 64, .block_size = 4});
  for (std::uint64_t id = 1; id <= 8; ++id) service.submit(request(id, 4, 20));
  StepPlan kept;
  service.scheduler.plan(0.0, kept);  // the prompts: more rows than any later step
  const std::string before = to_text(kept);
  CHECK_THROWS_AS(service.scheduler.plan(0.0, kept), InvalidArgument);
  CHECK(to_text(kept) == before);
  int moved = 0;
  while (true) {
    service.scheduler.commit(service.executor.run(kept));
    if (!service.scheduler.has_work()) break;
    const auto* sequences = kept.sequences.data();
    const auto* tokens = kept.tokens.data();
    const auto* tables = kept.block_tables.data();
    service.scheduler.plan(0.0, kept);
    REQUIRE(kept.sequences.size() == 8);
    CHECK(kept.sequences.data() == sequences);
    CHECK(kept.tokens.data() == tokens);
    moved += kept.block_tables.data() != tables;
  }
  CHECK(moved == 3);  // 8 entries grow to 48, twice the room each time: 16, 32, 64
}
