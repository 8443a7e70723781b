// Requests with several samples (section 4.4): one prompt computation, shared blocks, copy-on-write, joint preemption.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "fake_executor.hpp"
#include "pagedcore/scheduler.hpp"

using namespace pagedcore;

namespace {

SchedulerRequest group(std::uint64_t id, std::uint32_t prompt, std::uint32_t samples, std::uint32_t max_tokens) {
  SchedulerRequest request = fake::request(id, prompt, max_tokens, 10);
  request.num_samples = samples;
  return request;
}

struct Outcome {
  std::map<std::pair<std::uint64_t, std::uint32_t>, std::vector<TokenId>> outputs;
  std::uint32_t peak_used = 0;
  std::uint32_t most_sequences = 0;
  std::vector<std::size_t> copies;  // per step
};

Outcome serve(Scheduler& scheduler, fake::Executor& executor, std::uint32_t force_every = 0) {
  Outcome outcome;
  for (std::uint32_t step = 1; scheduler.has_work(); ++step) {
    REQUIRE(step < 10000);
    if (force_every != 0 && step % force_every == 0) scheduler.force_preempt(RequestId{1});
    const StepPlan plan = scheduler.plan(0.0);
    REQUIRE_FALSE(plan.empty());
    outcome.peak_used = std::max(outcome.peak_used, scheduler.cache().counts().used);
    outcome.most_sequences = std::max(outcome.most_sequences, static_cast<std::uint32_t>(plan.sequences.size()));
    outcome.copies.push_back(plan.copies.size());
    for (const SampleUpdate& update : scheduler.commit(executor.run(plan))) {
      if (update.token >= 0) outcome.outputs[{raw(update.request), update.sample}].push_back(update.token);
    }
    scheduler.check();
  }
  CHECK(scheduler.cache().counts().used == 0);
  return outcome;
}

void check_outputs(const Outcome& outcome, const SchedulerRequest& request, std::uint64_t stop_every) {
  for (std::uint32_t sample = 0; sample < request.num_samples; ++sample) {
    CAPTURE(sample);
    CHECK(outcome.outputs.at({raw(request.id), sample}) == fake::expected_output(request, sample, stop_every));
  }
}

}  // namespace

// rule: scheduler.samples-fork-the-leader
TEST_CASE("n samples compute one prompt, copy n - 1 blocks or none, and peak at prompt + n suffixes") {
  for (const std::uint32_t prompt : {6u, 8u}) {
    const KvCacheConfig cache{.num_blocks = 32, .block_size = 4};
    Scheduler scheduler({}, cache);
    fake::Executor executor(cache, 0);
    const SchedulerRequest request = group(1, prompt, 3, 5);
    scheduler.submit(request);
    const Outcome outcome = serve(scheduler, executor);
    check_outputs(outcome, request, 0);
    CHECK(scheduler.stats().tokens_computed == prompt + 3 * 4);
    CHECK(scheduler.stats().forks == 2);
    CHECK(outcome.copies.at(1) == (prompt % 4 == 0 ? 0 : 2));
    CHECK(scheduler.stats().block_copies == outcome.copies.at(1));
    const std::uint32_t shared = prompt / 4, own = (prompt + 4 + 3) / 4 - shared;
    CHECK(outcome.peak_used == shared + 3 * own);
  }
}

TEST_CASE("a group that just fits alone finishes, whatever preempts it") {
  for (const bool caching : {false, true}) {
    for (const std::uint32_t force_every : {0u, 2u, 3u, 5u}) {
      for (const std::uint32_t rows : {1u, 3u, 64u}) {
        // 1 shared + 3 x 3 blocks, and not one more.
        const KvCacheConfig cache{.num_blocks = 10, .block_size = 4, .enable_prefix_caching = caching};
        Scheduler scheduler({.max_batched_tokens = rows}, cache);
        fake::Executor executor(cache, 0);
        const SchedulerRequest request = group(1, 6, 3, 10);
        scheduler.submit(request);
        const bool progresses = force_every == 0 || rows > 32;  // else it is preempted before it sampled again
        if (!progresses) continue;
        check_outputs(serve(scheduler, executor, force_every), request, 0);
      }
    }
  }
}

TEST_CASE("samples of different lengths end one by one") {
  const KvCacheConfig cache{.num_blocks = 64, .block_size = 4};
  Scheduler scheduler({}, cache);
  fake::Executor executor(cache, 4);
  const SchedulerRequest request = group(1, 7, 12, 16);
  scheduler.submit(request);
  const Outcome outcome = serve(scheduler, executor, 6);
  check_outputs(outcome, request, 4);
  std::vector<std::size_t> lengths;
  for (const auto& [key, tokens] : outcome.outputs) lengths.push_back(tokens.size());
  CHECK(std::ranges::min(lengths) < std::ranges::max(lengths));
}

// rule: scheduler.group-decodes-as-one
TEST_CASE("more samples than sequences of a step take turns") {
  const KvCacheConfig cache{.num_blocks = 64, .block_size = 4};
  Scheduler scheduler({.max_sequences = 2}, cache);
  fake::Executor executor(cache, 0);
  const SchedulerRequest first = group(1, 6, 5, 6), second = group(2, 6, 2, 6);
  scheduler.submit(first);
  scheduler.submit(second);
  const Outcome outcome = serve(scheduler, executor);
  check_outputs(outcome, first, 0);
  check_outputs(outcome, second, 0);
  CHECK(outcome.most_sequences == 2);
}

// rule: scheduler.group-decodes-as-one
TEST_CASE("a group is preempted and comes back as one") {
  const KvCacheConfig cache{.num_blocks = 14, .block_size = 4, .enable_prefix_caching = false};
  Scheduler scheduler({.watermark = 0}, cache);
  fake::Executor executor(cache, 0);
  const SchedulerRequest first = group(1, 8, 2, 16), second = group(2, 6, 3, 12);
  scheduler.submit(first);
  scheduler.submit(second);
  const Outcome outcome = serve(scheduler, executor);
  check_outputs(outcome, first, 0);
  check_outputs(outcome, second, 0);
  CHECK(scheduler.stats().preemptions_recompute > 0);
  CHECK(scheduler.stats().forks > 3);  // siblings started again from their leader
}
