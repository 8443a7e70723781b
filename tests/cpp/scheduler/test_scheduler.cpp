#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "fake_executor.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/scheduler.hpp"

using namespace pagedcore;
using fake::request;

namespace {

std::vector<std::uint64_t> ids(const StepPlan& plan) {
  std::vector<std::uint64_t> ids;
  for (const ScheduledSequence& work : plan.sequences) ids.push_back(raw(work.request));
  return ids;
}

std::vector<std::uint32_t> rows(const StepPlan& plan) {
  std::vector<std::uint32_t> rows;
  for (const ScheduledSequence& work : plan.sequences) rows.push_back(work.num_rows);
  return rows;
}

using Ids = std::vector<std::uint64_t>;
using Rows = std::vector<std::uint32_t>;

/// A scheduler and an executor that never draws a stop token.
struct Machine {
  Machine(SchedulerConfig config, KvCacheConfig cache) : scheduler(config, cache), executor(cache, 0) {}

  StepPlan step() {
    StepPlan plan = scheduler.plan(0.0);
    scheduler.check();
    if (!plan.empty()) updates = scheduler.commit(executor.run(plan));
    scheduler.check();
    return plan;
  }
  void finish() {
    for (int i = 0; scheduler.has_work(); ++i) {
      REQUIRE(i < 10000);
      REQUIRE_FALSE(step().empty());
    }
    CHECK(scheduler.cache().counts().used == 0);
  }

  Scheduler scheduler;
  fake::Executor executor;
  std::vector<SampleUpdate> updates;
};

template <class F>
std::string message_of(F&& call) {
  try {
    call();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "";
}

}  // namespace

// rule: scheduler.one-token-range
TEST_CASE("one request: the prompt, then one token per step, then length") {
  Machine machine({}, {.num_blocks = 8, .block_size = 4});
  machine.scheduler.submit(request(1, 6, 3));
  CHECK(machine.scheduler.stats().waiting == 1);
  StepPlan plan = machine.step();
  CHECK(raw(plan.step) == 1);
  CHECK(rows(plan) == Rows{6});
  CHECK(plan.sequences[0].num_samples == 1);
  CHECK(plan.sequences[0].table_size == 2);
  CHECK(plan.tokens == std::vector<TokenId>{100, 101, 102, 103, 104, 105});
  CHECK(machine.scheduler.stats().running == 1);
  const TokenId first = machine.updates.at(0).token;
  plan = machine.step();
  CHECK(rows(plan) == Rows{1});
  CHECK(plan.sequences[0].first_position == 6);
  CHECK(plan.tokens == std::vector<TokenId>{first});
  CHECK(machine.updates.at(0).finish == FinishReason::none);
  machine.step();
  CHECK(machine.updates.at(0).finish == FinishReason::length);
  CHECK_FALSE(machine.scheduler.has_work());
  CHECK(machine.scheduler.plan(0.0).empty());
  CHECK(machine.scheduler.stats().tokens_computed == 8);
  CHECK(machine.scheduler.stats().tokens_sampled == 3);
}

// rule: scheduler.one-token-range
TEST_CASE("prompts are computed in chunks beside running sequences, within the row budget") {
  Machine machine({.max_batched_tokens = 8}, {.num_blocks = 64, .block_size = 4});
  machine.scheduler.submit(request(1, 4, 10));
  machine.scheduler.submit(request(2, 15, 10));
  CHECK(rows(machine.step()) == Rows{4, 4});
  CHECK(rows(machine.step()) == Rows{1, 7});
  StepPlan plan = machine.step();
  CHECK(rows(plan) == Rows{1, 4});
  CHECK(plan.sequences[1].num_samples == 1);
  CHECK(plan.sequences[1].first_position == 11);
  machine.finish();
}

// rule: scheduler.running-first
TEST_CASE("waiting requests come in by arrival, and nobody is skipped") {
  Machine machine({.max_sequences = 2, .watermark = 0}, {.num_blocks = 16, .block_size = 4});
  machine.scheduler.submit(request(3, 4, 4));
  machine.scheduler.submit(request(2, 40, 4));  // 11 blocks
  machine.scheduler.submit(request(1, 20, 4));  // 6 blocks: arrived first, submitted last
  CHECK(ids(machine.step()) == Ids{1});         // 2 does not fit beside it, and 3 would but has to wait
  machine.step();
  machine.step();
  CHECK(ids(machine.step()) == Ids{1});
  CHECK(ids(machine.step()) == Ids{2, 3});
  machine.finish();
}

// rule: scheduler.admission-leaves-room
TEST_CASE("an admission needs blocks for the whole prompt and its first token, not for the first chunk") {
  Machine machine({.max_batched_tokens = 8, .watermark = 0}, {.num_blocks = 9, .block_size = 4});
  machine.scheduler.submit(request(1, 16, 4));
  machine.scheduler.submit(request(2, 16, 4));  // needs 5 with its first token; 1 was promised 5 of the 9
  CHECK(rows(machine.step()) == Rows{8});
  CHECK(rows(machine.step()) == Rows{8});
  CHECK(ids(machine.step()) == Ids{1});
  machine.finish();
  CHECK(machine.scheduler.stats().preemptions_recompute == 0);
}

TEST_CASE("the watermark is left free by admissions, not by running sequences, and waived when nothing runs") {
  const KvCacheConfig cache{.num_blocks = 10, .block_size = 4};
  Machine machine({.watermark = 0.5}, cache);
  machine.scheduler.submit(request(1, 36, 4));
  machine.scheduler.submit(request(2, 3, 1));
  CHECK(ids(machine.step()) == Ids{1});
  CHECK(ids(machine.step()) == Ids{1});
  machine.finish();
}

// rule: scheduler.later-makes-room
TEST_CASE("the latest arrival is preempted, comes back first, and nobody is admitted in that step") {
  Machine machine({.watermark = 0}, {.num_blocks = 6, .block_size = 4, .enable_prefix_caching = false});
  machine.scheduler.submit(request(1, 8, 12));
  machine.scheduler.submit(request(2, 7, 12));
  CHECK(ids(machine.step()) == Ids{1, 2});
  machine.scheduler.submit(request(3, 1, 1));
  StepPlan plan;
  do {
    plan = machine.step();
  } while (plan.preempted.empty());
  CHECK(plan.preempted == std::vector<RequestId>{RequestId{2}});
  CHECK(ids(plan) == Ids{1});
  CHECK(machine.scheduler.stats().waiting >= 1);
  machine.finish();
  CHECK(machine.scheduler.stats().preemptions_recompute >= 1);
  CHECK(machine.scheduler.stats().tokens_recomputed > 0);
}

TEST_CASE("a prefix hit skips its rows but never the last prompt token") {
  Machine machine({}, {.num_blocks = 16, .block_size = 4});
  machine.scheduler.submit(request(1, 8, 2));
  machine.finish();
  SchedulerRequest again = request(1, 8, 2);
  again.id = RequestId{2};
  machine.scheduler.submit(again);
  again.id = RequestId{3};
  again.salt = 9;
  machine.scheduler.submit(again);
  const StepPlan plan = machine.step();
  // Three tokens of the second block too: they are copied.
  CHECK(rows(plan) == Rows{1, 8});
  CHECK(plan.sequences[0].first_position == 7);
  CHECK(plan.copies.size() == 1);
  CHECK(plan.copies[0].num_tokens == 3);
  CHECK(machine.scheduler.stats().prefix_hit_tokens == 7);
  machine.finish();
}

TEST_CASE("generated tokens are cached too: the next turn of a conversation finds them") {
  Machine machine({}, {.num_blocks = 16, .block_size = 4});
  machine.scheduler.submit(request(1, 4, 9));
  SchedulerRequest turn = request(1, 4, 2);
  while (machine.scheduler.has_work()) {
    machine.step();
    for (const SampleUpdate& update : machine.updates) turn.prompt.push_back(update.token);
  }
  turn.id = RequestId{2};
  machine.scheduler.submit(turn);
  CHECK(machine.step().sequences[0].first_position == 12);
}

TEST_CASE("prompt logprobs: every prompt row but the last is scored, and no cached prefix is used") {
  Machine machine({.max_batched_tokens = 3}, {.num_blocks = 16, .block_size = 4});
  machine.scheduler.submit(request(1, 7, 1));
  machine.finish();
  SchedulerRequest scored = request(1, 7, 3);
  scored.prompt_logprobs = true;
  machine.scheduler.submit(scored);
  for (const std::uint32_t count : {3u, 3u, 0u, 0u}) {
    const StepPlan plan = machine.step();
    CHECK(plan.sequences[0].num_scored == count);
  }
}

TEST_CASE("max_tokens = 0 computes the prompt and samples nothing") {
  Machine machine({.max_batched_tokens = 4}, {.num_blocks = 4, .block_size = 4});
  SchedulerRequest prompt_only = request(1, 6, 0);
  prompt_only.num_samples = 2;
  machine.scheduler.submit(prompt_only);
  CHECK(machine.step().sequences[0].num_samples == 0);
  CHECK(machine.updates.empty());
  CHECK(machine.step().sequences[0].num_samples == 0);
  REQUIRE(machine.updates.size() == 2);
  CHECK(machine.updates[1].sample == 1);
  CHECK(machine.updates[1].token == -1);
  CHECK(machine.updates[1].finish == FinishReason::length);
  CHECK_FALSE(machine.scheduler.has_work());
}

TEST_CASE("a stop token ends a sample") {
  Machine machine({}, {.num_blocks = 4, .block_size = 4});
  machine.executor.stop_every = 1;
  machine.scheduler.submit(request(1, 2, 9));
  machine.step();
  CHECK(machine.updates.at(0).finish == FinishReason::stop);
  CHECK_FALSE(machine.scheduler.has_work());
}

// rule: scheduler.fits-alone-or-is-refused
TEST_CASE("requests that could never finish are refused with the arithmetic") {
  const Scheduler scheduler({.max_context = 50}, {.num_blocks = 4, .block_size = 4});
  CHECK(message_of([&] { scheduler.validate(request(7, 40, 11)); }) ==
        "request 7: a prompt of 40 tokens and max_tokens = 11 make 51, but a sequence has at most 50 (max_context); "
        "lower max_tokens to 10 or less, or shorten the prompt");
  SchedulerRequest group = request(7, 6, 4);
  group.num_samples = 4;
  CHECK(message_of([&] { scheduler.validate(group); }) ==
        "request 7: a prompt of 6 tokens and 4 x 4 generated ones need 1 shared + 4 x 2 = 9 KV blocks of 4 tokens, but "
        "the cache has 4; lower max_tokens or the number of samples, shorten the prompt, or enlarge the cache");
  group.num_samples = 1;
  scheduler.validate(group);
  scheduler.validate(request(7, 16, 1));  // the last token's KV is never computed
  CHECK_THROWS_AS(scheduler.validate(request(7, 16, 2)), InvalidArgument);
  CHECK_THROWS_AS(scheduler.validate(request(7, 0, 2)), InvalidArgument);
  group.num_samples = 0;
  CHECK_THROWS_AS(scheduler.validate(group), InvalidArgument);
  group.num_samples = 1;
  group.prompt[2] = -5;
  CHECK_THROWS_AS(scheduler.validate(group), InvalidArgument);
  SchedulerRequest timeless = request(7, 1, 1);
  timeless.arrival = std::nan("");
  CHECK_THROWS_AS(scheduler.validate(timeless), InvalidArgument);
}

// rule: scheduler.result-answers-the-plan
TEST_CASE("misuse is refused and changes nothing") {
  CHECK_THROWS_AS(Scheduler({.max_batched_tokens = (1 << 20) + 1}, {.num_blocks = 1}), InvalidArgument);
  CHECK_THROWS_AS(Scheduler({.max_sequences = 0}, {.num_blocks = 1}), InvalidArgument);
  CHECK_THROWS_AS(Scheduler({.watermark = 1.5}, {.num_blocks = 1}), InvalidArgument);
  Machine machine({}, {.num_blocks = 8, .block_size = 4});
  Scheduler& scheduler = machine.scheduler;
  CHECK_THROWS_AS(scheduler.commit({}), InvalidArgument);
  scheduler.submit(request(1, 3, 4));
  CHECK_THROWS_AS(scheduler.submit(request(1, 3, 4)), InvalidArgument);
  const StepPlan plan = scheduler.plan(0.0);
  CHECK_THROWS_AS(scheduler.plan(0.0), InvalidArgument);
  const StepResult good = machine.executor.run(plan);
  const auto refused = [&](auto change) {
    StepResult bad = good;
    change(bad);
    CHECK_THROWS_AS(scheduler.commit(bad), InvalidArgument);
    scheduler.check();
  };
  refused([](StepResult& result) { result.step = StepId{9}; });
  refused([](StepResult& result) { result.tokens.clear(); });
  refused([](StepResult& result) { result.tokens.push_back(result.tokens[0]); });
  refused([](StepResult& result) { result.tokens[0].sample = 1; });
  refused([](StepResult& result) { result.tokens[0].token = -1; });
  refused([](StepResult& result) { result.tokens[0].sequence = SequenceId{77}; });
  CHECK(scheduler.commit(good).size() == 1);
  machine.finish();
}

// rule: scheduler.end-behind-the-step
TEST_CASE("an abort while a step is in flight holds its blocks back until the step is over") {
  Machine machine({}, {.num_blocks = 8, .block_size = 4, .enable_prefix_caching = false});
  Scheduler& scheduler = machine.scheduler;
  CHECK_FALSE(scheduler.abort(RequestId{1}));
  scheduler.submit(request(1, 6, 4));
  const StepPlan plan = scheduler.plan(0.0);
  CHECK(scheduler.abort(RequestId{1}));
  CHECK(scheduler.cache().counts().in_flight == 2);
  scheduler.submit(request(1, 6, 4));  // the id is free again, and the old result is not taken for it
  CHECK(scheduler.commit(machine.executor.run(plan)).empty());
  CHECK(scheduler.cache().counts().free == 8);
  CHECK(scheduler.tokens(RequestId{1}, 0).size() == 6);
  machine.finish();
}

TEST_CASE("a failed request ends alone") {
  Machine machine({}, {.num_blocks = 8, .block_size = 4});
  machine.scheduler.submit(request(1, 6, 4));
  machine.scheduler.submit(request(2, 6, 4));
  const StepPlan plan = machine.scheduler.plan(0.0);
  StepResult result = machine.executor.run(plan);
  result.failed = {RequestId{1}, RequestId{5}};
  result.tokens.erase(result.tokens.begin());
  const auto updates = machine.scheduler.commit(result);
  REQUIRE(updates.size() == 2);
  CHECK(updates[0].finish == FinishReason::error);
  CHECK(updates[0].token == -1);
  CHECK(updates[1].request == RequestId{2});
  machine.finish();
}

TEST_CASE("force_preempt recomputes a running request, now or after the step in flight") {
  Machine machine({}, {.num_blocks = 8, .block_size = 4, .enable_prefix_caching = false});
  Scheduler& scheduler = machine.scheduler;
  scheduler.submit(request(1, 6, 8));
  CHECK_FALSE(scheduler.force_preempt(RequestId{1}));  // holds nothing yet
  machine.step();
  CHECK(scheduler.force_preempt(RequestId{1}));
  StepPlan plan = scheduler.plan(0.0);
  CHECK(plan.preempted == std::vector<RequestId>{RequestId{1}});
  CHECK(rows(plan) == Rows{1});  // nobody needed its blocks
  CHECK(scheduler.force_preempt(RequestId{1}));
  scheduler.commit(machine.executor.run(plan));
  CHECK(scheduler.stats().running == 0);
  CHECK(scheduler.cache().counts().used == 0);
  scheduler.clear_prefix_cache();
  plan = machine.step();
  CHECK(rows(plan) == Rows{8});
  CHECK(scheduler.stats().preemptions_recompute == 2);
  CHECK(scheduler.stats().preemption_hit_tokens == 6);
  CHECK(scheduler.stats().tokens_recomputed == 7);
  machine.finish();
}

// rule: scheduler.later-makes-room
TEST_CASE("of a preempted request only the blocks that others take are computed again, its last first") {
  for (const bool caching : {true, false}) {
    // 14 blocks: the first request grows into what the second holds.
    Machine machine({.watermark = 0}, {.num_blocks = 14, .block_size = 4, .enable_prefix_caching = caching});
    Scheduler& scheduler = machine.scheduler;
    scheduler.submit(request(1, 15, 18));
    scheduler.submit(request(2, 31, 8));
    while (scheduler.stats().preemptions_recompute == 0) machine.step();
    const auto before = scheduler.tokens(RequestId{2}, 0).size() - 1;
    while (scheduler.tokens(RequestId{1}, 0).size() > 0) machine.step();  // the first one ends
    StepPlan plan;
    do plan = machine.step();
    while (plan.sequences.empty());
    REQUIRE(ids(plan) == Ids{2});
    CHECK(plan.sequences[0].first_position >= 20);  // it held 31 tokens or more; the first needed two blocks or three
    CHECK(plan.sequences[0].first_position < before);
    CHECK(scheduler.stats().preemption_hit_tokens == plan.sequences[0].first_position);
    machine.finish();
  }
}
