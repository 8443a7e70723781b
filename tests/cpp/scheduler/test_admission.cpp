// Admission: what each policy asks for, what comes of it for preemptions and batches, and what is learned of output
// lengths.
#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "scheduler/policy/outlook.hpp"
#include "scheduler/policy/output_lengths.hpp"
#include "service.hpp"

using namespace pagedcore;

namespace {

constexpr AdmissionPolicy kPolicies[] = {AdmissionPolicy::known, AdmissionPolicy::watermark,
                                         AdmissionPolicy::never_evict, AdmissionPolicy::adaptive};

struct Outcome {
  std::uint64_t preemptions = 0, steps = 0;
  double batch = 0.0;  // running requests, mean over the steps
};

/// Serves requests that ask for `max_tokens` and stop by themselves after 12 tokens in the mean.
Outcome serve(SchedulerConfig config, KvCacheConfig cache, std::uint32_t max_tokens, std::uint32_t samples = 1,
              std::uint32_t beams = 0) {
  fake::Service service(config, cache, 12);
  std::mt19937 random(5);
  for (std::uint64_t id = 1; id <= 300; ++id) {
    SchedulerRequest request;
    request.id = RequestId{id};
    request.arrival = static_cast<double>(id);
    request.max_tokens = max_tokens;
    request.num_samples = id % 3 == 0 ? samples : 1;
    if (beams > 0 && id % 5 == 0) {
      request.num_samples = 1;
      request.beam_width = beams;
      request.max_tokens = 10;
    }
    const bool common = id % 4 == 0;  // beginnings that the prefix cache finds
    for (std::uint32_t i = 0; i < 4 + random() % 24; ++i) {
      request.prompt.push_back(static_cast<TokenId>(common ? i : 100 * id + i));
    }
    service.submit(request);
  }
  Outcome outcome;
  while (service.scheduler.has_work()) {
    REQUIRE(outcome.steps < 100000);
    REQUIRE(service.step());
    outcome.batch += service.scheduler.stats().running;
    ++outcome.steps;
  }
  outcome.batch /= static_cast<double>(outcome.steps);
  const SchedulerStats stats = service.scheduler.stats();
  outcome.preemptions = stats.preemptions_recompute + stats.preemptions_swap;
  for (const auto& [key, tokens] : service.samples) {
    REQUIRE(tokens == fake::expected_output(service.requests.at(key.first), key.second, 12));
  }
  return outcome;
}

}  // namespace

// rule: scheduler.never-evict-preempts-nobody
TEST_CASE("never_evict preempts nobody: samples, beams, shared prefixes, windows, chunks") {
  const std::vector<std::uint32_t> windows[] = {{}, {8}, {0, 8}};
  for (const auto& window : windows) {
    for (const bool caching : {false, true}) {
      for (const std::uint32_t block_size : {1u, 4u, 16u}) {
        CAPTURE(caching);
        CAPTURE(block_size);
        CAPTURE(window.size());
        const auto groups = static_cast<std::uint32_t>(std::max<std::size_t>(1, window.size()));
        const KvCacheConfig cache{.num_blocks = (640 / block_size + 8) * groups,
                                  .block_size = block_size,
                                  .enable_prefix_caching = caching,
                                  .windows = window};
        const Outcome outcome =
            serve({.max_batched_tokens = 24, .max_sequences = 24, .admission = AdmissionPolicy::never_evict}, cache, 60,
                  4, 3);
        CHECK(outcome.preemptions == 0);
        CHECK(outcome.batch > 1.2);  // several at a time
      }
    }
  }
}

// rule: scheduler.adaptive-lies-between
TEST_CASE("adaptive lies between: larger batches than never_evict, fewer preemptions than the watermark") {
  Outcome of[4];
  for (const AdmissionPolicy policy : kPolicies) {
    of[static_cast<int>(policy)] = serve({.max_batched_tokens = 64, .max_sequences = 64, .admission = policy},
                                         {.num_blocks = 160, .block_size = 4, .enable_prefix_caching = false}, 120);
  }
  const auto& [known, watermark, never, adaptive] = of;
  MESSAGE("preemptions, batch, steps: known "
          << known.preemptions << ", " << known.batch << ", " << known.steps << "; watermark " << watermark.preemptions
          << ", " << watermark.batch << ", " << watermark.steps << "; adaptive " << adaptive.preemptions << ", "
          << adaptive.batch << ", " << adaptive.steps << "; never_evict " << never.preemptions << ", " << never.batch
          << ", " << never.steps);
  CHECK(never.preemptions == 0);
  CHECK(adaptive.preemptions * 4 < watermark.preemptions);
  CHECK(known.preemptions <= watermark.preemptions);
  CHECK(adaptive.batch > 1.5 * never.batch);
  CHECK(adaptive.steps < never.steps);
}

TEST_CASE("never_evict counts a prefix that running requests hold once") {
  // A prompt of ten blocks in common and three blocks each of their own: 10 + 4 * 3 of 24.
  fake::Service service({.max_batched_tokens = 256, .admission = AdmissionPolicy::never_evict},
                        {.num_blocks = 24, .block_size = 4});
  for (std::uint64_t id = 1; id <= 6; ++id) {
    SchedulerRequest request{.id = RequestId{id}, .arrival = 0.0, .prompt = {}, .max_tokens = 9};
    for (TokenId i = 0; i < 40; ++i) request.prompt.push_back(i);
    for (TokenId i = 0; i < 3; ++i) request.prompt.push_back(static_cast<TokenId>(100 * id) + i);
    service.submit(request);
  }
  service.step();
  CHECK(service.scheduler.stats().running == 1);  // the others wait for what it computes
  service.step();
  CHECK(service.scheduler.stats().running == 4);
  service.finish();
  CHECK(service.scheduler.stats().preemptions_recompute == 0);
}

TEST_CASE("output lengths: a life table") {
  sched::OutputLengths lengths;
  CHECK(lengths.chance(0, 100000) == 1.0);  // nothing is known: everybody may come to max_tokens
  for (int i = 0; i < 2000; ++i) lengths.add(i % 2 == 0 ? 20 : 100, false);
  CHECK(lengths.chance(0, 10) == 1.0);
  CHECK(lengths.chance(0, 50) == doctest::Approx(0.5).epsilon(0.02));
  CHECK(lengths.chance(0, 200) < 0.01);
  CHECK(lengths.chance(40, 30) == 1.0);  // of those that came to 40 all come to 100
  CHECK(lengths.chance(40, 100) < 0.01);
  // Outputs that were cut off say nothing about what would have followed.
  sched::OutputLengths cut;
  for (int i = 0; i < 2000; ++i) cut.add(i % 2 == 0 ? 20 : 50, i % 2 != 0);
  CHECK(cut.chance(0, 50) == doctest::Approx(0.5).epsilon(0.02));
  CHECK(cut.chance(0, 100000) == doctest::Approx(0.5).epsilon(0.02));
  // One output shows little: another may go on.
  sched::OutputLengths one;
  one.add(20, false);
  CHECK(one.chance(0, 100) == doctest::Approx(0.5));
  // What was learned fades.
  for (int i = 0; i < 3000; ++i) lengths.add(1000, false);
  CHECK(lengths.chance(0, 500) > 0.98);
  for (std::uint32_t tokens = 1; tokens != 0; tokens *= 2) {
    lengths.add(tokens, false);
    CHECK(std::isfinite(lengths.chance(tokens, 1)));
  }
}

TEST_CASE("outputs that max_tokens ended are no sign that others end there") {
  // Two of 26 blocks fit into 64 to their ends, eight do if outputs end with five tokens.
  const auto running_after = [](std::uint64_t stop_every) {
    fake::Service service({.admission = AdmissionPolicy::adaptive}, {.num_blocks = 64, .block_size = 4}, stop_every);
    std::uint64_t last = 0;
    const auto submit = [&](int count, std::uint32_t max_tokens) {
      for (int i = 0; i < count; ++i) {
        SchedulerRequest request{.id = RequestId{++last}, .arrival = 0.0, .prompt = {}, .max_tokens = max_tokens};
        for (TokenId t = 0; t < 4; ++t) request.prompt.push_back(static_cast<TokenId>(10 * last) + t);
        service.submit(request);
      }
    };
    submit(300, stop_every == 0 ? 5 : 100);
    service.finish();
    submit(8, 100);
    service.step();
    return service.scheduler.stats().running;
  };
  CHECK(running_after(0) == 2);
  CHECK(running_after(3) > 4);
}

TEST_CASE("an outlook adds up demands over time") {
  const auto blocks = [](std::uint32_t tokens) { return static_cast<double>(std::min(tokens, 1000u)) / 10.0; };
  const auto sure = [](std::uint32_t) { return 1.0; };
  sched::Outlook certain;
  certain.add(1000, 5.0, sure, blocks);
  CHECK(certain.fits(100.0));
  CHECK_FALSE(certain.fits(99.0));
  // The first ends for sure before the second has grown: its own blocks and what it took are free by then.
  sched::Outlook two;
  two.add(16, 40.0, sure, [](std::uint32_t tokens) { return tokens > 16 ? 2.0 : 1.0; });
  two.add(1000, 0.0, sure, blocks);
  CHECK(two.fits(60.0));
  CHECK_FALSE(two.fits(59.0));
  // Many that end with a chance of one half before they take ten blocks: 50 of 100 in the mean, with a deviation of 5.
  sched::Outlook many;
  for (int i = 0; i < 100; ++i) {
    many.add(
        1000, 0.0, [](std::uint32_t tokens) { return tokens < 200 ? 1.0 : 0.5; },
        [](std::uint32_t tokens) { return tokens < 300 ? 0.0 : 10.0; });
  }
  CHECK(many.fits(500.0 + 1.7 * 50.0));
  CHECK_FALSE(many.fits(500.0 + 1.6 * 50.0));
  sched::Outlook most;
  most.add(30.0);
  most.add(12.0);
  CHECK(most.fits(42.0));
  CHECK_FALSE(most.fits(41.0));
}
