// Beam searches: minimal forks, gang decoding, recomputation that shares again, and results that answer the plan.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "pagedcore/error.hpp"
#include "service.hpp"

using namespace pagedcore;
using fake::Service;

namespace {

SchedulerRequest search(std::uint64_t id, std::size_t prompt, std::uint32_t width, std::uint32_t max_tokens) {
  SchedulerRequest request{.id = RequestId{id}, .arrival = static_cast<double>(id), .prompt = {}};
  for (std::size_t i = 0; i < prompt; ++i) request.prompt.push_back(static_cast<TokenId>((id * 7 + i * i) % 4));
  request.beam_width = width;
  request.max_tokens = max_tokens;
  return request;
}

}  // namespace

// rule: scheduler.beams-keep-blocks
TEST_CASE("first children stay, others take the lowest free places") {
  const auto places = [](std::vector<BeamChild> children) { return place_beams(children); };
  CHECK(places({{0, 5}, {0, 6}, {0, 7}}) == std::vector<std::uint32_t>{0, 1, 2});
  CHECK(places({{2, 5}, {2, 6}, {0, 7}, {2, 8}}) == std::vector<std::uint32_t>{2, 1, 0, 3});
  CHECK(places({{3, 5}}) == std::vector<std::uint32_t>{3});
  CHECK(places({}).empty());
}

TEST_CASE("a search finds what a search without any KV finds") {
  for (const std::uint32_t width : {1u, 2u, 3u, 8u, 32u}) {
    for (const std::uint32_t rows : {32u, 512u}) {
      Service service({.max_batched_tokens = rows, .max_sequences = 64}, {.num_blocks = 400, .block_size = 4});
      const SchedulerRequest request = search(1, 37, width, 20);
      service.submit(request);
      service.finish();
      CHECK(service.beams[1] == fake::expected_beams(request));
    }
  }
}

// rule: scheduler.beams-keep-blocks
TEST_CASE("forks and copies are minimal") {
  Service service({.max_batched_tokens = 64, .max_sequences = 64},
                  {.num_blocks = 100, .block_size = 4, .enable_prefix_caching = false});
  const SchedulerRequest request = search(1, 8, 4, 12);
  service.submit(request);
  std::uint64_t forks = 0, copies = 0;
  while (service.scheduler.has_work()) {
    const auto before = service.scheduler.stats();
    std::map<std::uint64_t, int> children;  // by parent
    const StepPlan plan = service.scheduler.plan(0.0);
    const StepResult result = service.executor.run(plan);
    std::uint64_t expected = 0;
    if (!result.beams.empty()) {
      std::set<std::uint32_t> parents;
      for (const BeamChild& child : result.beams[0].children) parents.insert(child.parent);
      expected = result.beams[0].children.size() - parents.size();
    }
    service.scheduler.commit(result);
    const auto after = service.scheduler.stats();
    CHECK(after.forks - before.forks == expected);
    CHECK(after.block_copies - before.block_copies <= forks);  // at most one for every fork
    forks += expected;
    copies += after.block_copies - before.block_copies;
  }
  CHECK(forks > 3);
  CHECK(copies <= forks);
}

TEST_CASE("beams share: a search of width 16 needs a fraction of 16 sequences") {
  Service service({.max_batched_tokens = 512, .max_sequences = 64},
                  {.num_blocks = 2000, .block_size = 4, .enable_prefix_caching = false});
  service.submit(search(1, 200, 16, 40));
  service.finish();
  CHECK(service.most_used < 50 + 16 * 10 + 16);  // without sharing of what beams generated: 50 + 16 * 10
  CHECK(service.most_used > 50);
}

// rule: scheduler.preempted-group-shares-again
TEST_CASE("preemption by recomputation shares again and changes nothing") {
  const SchedulerRequest request = search(1, 21, 8, 30);
  for (const bool caching : {false, true}) {
    Service plain({.max_batched_tokens = 64, .max_sequences = 64},
                  {.num_blocks = 300, .block_size = 4, .enable_prefix_caching = caching});
    plain.submit(request);
    plain.finish();
    Service service({.max_batched_tokens = 64, .max_sequences = 64},
                    {.num_blocks = 300, .block_size = 4, .enable_prefix_caching = caching});
    service.submit(request);
    int steps = 0;
    while (service.scheduler.has_work()) {
      REQUIRE(++steps < 1000);
      if (steps % 9 == 0) service.scheduler.force_preempt(request.id);
      REQUIRE(service.step());
    }
    CHECK(service.scheduler.stats().preemptions_recompute > 3);
    CHECK(service.beams[1] == fake::expected_beams(request));
    CHECK(service.most_used <= plain.most_used);  // nothing is held twice that was shared
  }
}

// rule: scheduler.preempted-group-shares-again
TEST_CASE("samples share again what they had in common") {
  // Three tokens, so that samples agree for a while: recomputed together they hold no more than before.
  SchedulerRequest request = search(1, 30, 0, 40);
  request.num_samples = 6;
  Service plain({}, {.num_blocks = 300, .block_size = 4, .enable_prefix_caching = false});
  plain.submit(request);
  plain.finish();
  Service service({}, {.num_blocks = 300, .block_size = 4, .enable_prefix_caching = false});
  service.submit(request);
  for (int steps = 0; service.scheduler.has_work(); ++steps) {
    REQUIRE(steps < 1000);
    if (steps % 11 == 10) service.scheduler.force_preempt(request.id);
    REQUIRE(service.step());
  }
  CHECK(service.samples == plain.samples);
  CHECK(service.most_used <= plain.most_used);
}

TEST_CASE("searches, samples and single requests in one crowded cache") {
  std::mt19937 generator(7);
  const auto random = [&] { return static_cast<std::uint32_t>(generator()); };
  std::uint64_t preempted = 0, aborted = 0;
  for (int round = 0; round < 30; ++round) {
    const std::uint32_t block_size = 1 + random() % 6;
    Service service(
        {.max_batched_tokens = 8 + random() % 40, .max_sequences = 8},
        {.num_blocks = 160 / block_size + 10, .block_size = block_size, .enable_prefix_caching = round % 2 == 0}, 9);
    std::set<std::uint64_t> gone;
    std::uint64_t next = 1;
    for (int steps = 0; steps < 20000; ++steps) {
      if (next <= 25 && random() % 3 == 0) {
        SchedulerRequest request =
            search(next++, 1 + random() % 20, random() % 3 ? 1 + random() % 7 : 0, 1 + random() % 10);
        if (request.beam_width == 0) request.num_samples = 1 + random() % 5;
        try {
          service.submit(request);
        } catch (const InvalidArgument&) {
        }
      }
      if (!service.requests.empty() && random() % 9 == 0) {
        const std::uint64_t id = 1 + random() % next;
        service.scheduler.force_preempt(RequestId{id});
      }
      if (random() % 40 == 0) {
        const std::uint64_t id = 1 + random() % next;
        if (service.scheduler.abort(RequestId{id})) {
          gone.insert(id);
          service.executor.searches.erase(id);
        }
      }
      if (!service.scheduler.has_work() && next > 25) break;
      if (service.scheduler.has_work()) REQUIRE(service.step());
    }
    REQUIRE(!service.scheduler.has_work());
    CHECK(service.scheduler.cache().counts().used == 0);
    for (const auto& [id, request] : service.requests) {
      if (gone.contains(id)) continue;
      if (request.beam_width > 0) {
        CHECK(service.beams[id] == fake::expected_beams(request));
      } else {
        for (std::uint32_t k = 0; k < request.num_samples; ++k) {
          CHECK(service.samples[{id, k}] == fake::expected_output(request, k, 9));
        }
      }
    }
    preempted += service.scheduler.stats().preemptions_recompute;
    aborted += gone.size();
  }
  CHECK(preempted > 30);
  CHECK(aborted > 5);
}

// rule: scheduler.result-answers-the-plan
TEST_CASE("a result must answer the plan") {
  Service service({.max_batched_tokens = 64, .max_sequences = 8}, {.num_blocks = 100, .block_size = 4});
  service.submit(search(1, 5, 3, 4));
  const auto refused = [&](const StepResult& result, const char* why) {
    CHECK_THROWS_WITH_AS(service.scheduler.commit(result), doctest::Contains(why), InvalidArgument);
    service.scheduler.check();
  };
  StepPlan plan = service.scheduler.plan(0.0);
  StepResult result{.step = plan.step, .tokens = {}, .failed = {}, .beams = {}};
  refused(result, "its result is missing");
  result.beams = {{RequestId{1}, {{1, 2}}}};
  refused(result, "beam 1 was not sampled");
  result.beams = {{RequestId{1}, {{0, -2}}}};
  refused(result, "token -2 is negative");
  result.beams = {{RequestId{1}, {{0, 1}, {0, 2}, {0, 3}, {0, 0}}}};
  refused(result, "its width is 3");
  result.beams = {{RequestId{1}, {{0, 1}}}, {RequestId{1}, {{0, 1}}}};
  refused(result, "comes twice");
  result.beams = {{RequestId{1}, {{0, 1}, {0, 2}}}};
  result.tokens = {{plan.sequences[0].sequence, 0, 1, false}};
  refused(result, "StepResult::beams");
  result.tokens.clear();
  CHECK(service.scheduler.commit(result).size() == 1);
  for (int length = 1; length < 3; ++length) {
    plan = service.scheduler.plan(0.0);
    CHECK(plan.sequences.size() == 2);
    result = {.step = plan.step, .tokens = {}, .failed = {}, .beams = {{RequestId{1}, {{0, 1}, {1, 1}}}}};
    service.scheduler.commit(result);
  }
  plan = service.scheduler.plan(0.0);
  result.step = plan.step;
  refused(result, "its max_tokens, and cannot go on");
  result.beams[0].children.clear();
  const auto updates = service.scheduler.commit(result);
  REQUIRE(updates.size() == 1);
  CHECK(updates[0].finish == FinishReason::stop);
  CHECK(!service.scheduler.has_work());
}

TEST_CASE("what can never run is refused with the arithmetic") {
  Scheduler scheduler({.max_batched_tokens = 16, .max_sequences = 8}, {.num_blocks = 20, .block_size = 4});
  const auto refused = [&](const SchedulerRequest& request, const char* why) {
    CHECK_THROWS_WITH_AS(scheduler.submit(request), doctest::Contains(why), InvalidArgument);
  };
  refused(search(1, 4, 9, 2), "a step has at most 8");
  refused(search(1, 8, 4, 30),
          "2 shared + 4 x 8 = 34 KV blocks of 4 tokens, but the cache has 20; lower max_tokens or beam_width");
  SchedulerRequest both = search(1, 4, 2, 2);
  both.num_samples = 2;
  refused(both, "takes no samples");
  refused(search(1, 4, 2, 0), "generates tokens");
  CHECK(!scheduler.has_work());
}
