// Host memory runs out at every single allocation that the scheduler makes: the call throws std::bad_alloc, nothing has
// changed, and the same call succeeds afterwards.
#include <doctest/doctest.h>

#include <cstdlib>
#include <map>
#include <new>
#include <vector>

#include "failing_allocations.hpp"
#include "fake_executor.hpp"
#include "pagedcore/scheduler.hpp"

namespace {
thread_local long allocations_until_failure = -1;
}

void fail_after_allocations(long count) noexcept { allocations_until_failure = count; }

// Not inlined: GCC would see free() called on what `new` returned and take it for a mistake.
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (allocations_until_failure >= 0 && allocations_until_failure-- == 0) throw std::bad_alloc();
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using namespace pagedcore;

/// Calls until it succeeds, each time with one more allocation granted.
template <class Call>
auto with_failures(const Scheduler& scheduler, long& failures, Call&& call) {
  for (long granted = 0;; ++granted) {
    const KvCacheCounts before = scheduler.cache().counts();
    try {
      allocations_until_failure = granted;
      auto result = call();
      allocations_until_failure = -1;
      return result;
    } catch (const std::bad_alloc&) {
      allocations_until_failure = -1;
      ++failures;
      scheduler.check();
      const KvCacheCounts after = scheduler.cache().counts();
      REQUIRE(after.used == before.used);
      REQUIRE(after.shared == before.shared);
      REQUIRE(after.cached == before.cached);
      REQUIRE(after.free == before.free);
    }
  }
}

}  // namespace

// rule: scheduler.throw-changes-nothing
TEST_CASE("submit, plan and commit leave everything as it was when memory runs out") {
  const KvCacheConfig cache{.num_blocks = 16, .block_size = 4, .num_swap_blocks = 24};
  Scheduler scheduler({.max_batched_tokens = 24, .watermark = 0}, cache);
  fake::Executor executor(cache, 9);
  std::vector<SchedulerRequest> requests;
  std::map<std::pair<std::uint64_t, std::uint32_t>, std::vector<TokenId>> outputs;
  std::map<std::uint64_t, std::vector<std::vector<TokenId>>> beams;
  long failures = 0;
  for (std::uint64_t id = 0; id < 12; ++id) {
    SchedulerRequest request;
    request.id = RequestId{id};
    request.num_samples = static_cast<std::uint32_t>(1 + id % 3);
    request.max_tokens = 9;
    if (id % 4 == 3) {
      request.num_samples = 1;
      request.beam_width = 3;
      executor.searches[id].width = 3;
      executor.searches[id].max_tokens = request.max_tokens;
    }
    for (std::uint32_t i = 0; i < 3 + 2 * (id % 5); ++i) request.prompt.push_back(static_cast<TokenId>(i));
    requests.push_back(request);
    with_failures(scheduler, failures, [&] {
      scheduler.submit(requests.back());
      return 0;
    });
  }
  while (scheduler.has_work()) {
    const StepPlan plan = with_failures(scheduler, failures, [&] { return scheduler.plan(0.0); });
    REQUIRE_FALSE(plan.empty());
    const StepResult result = executor.run(plan);
    for (const BeamResult& beam : result.beams) {
      if (!beam.children.empty()) continue;
      for (const BeamChild& child : executor.searches.at(raw(beam.request)).last) {
        const auto tokens = scheduler.tokens(beam.request, child.parent);
        const std::size_t prompt = requests.at(raw(beam.request)).prompt.size();
        beams[raw(beam.request)].emplace_back(tokens.begin() + static_cast<std::ptrdiff_t>(prompt), tokens.end());
        beams[raw(beam.request)].back().push_back(child.token);
      }
    }
    for (const SampleUpdate& update : with_failures(scheduler, failures, [&] { return scheduler.commit(result); })) {
      outputs[{raw(update.request), update.sample}].push_back(update.token);
    }
  }
  CHECK(failures > 200);
  CHECK(scheduler.stats().preemptions_swap > 0);
  for (const SchedulerRequest& request : requests) {
    if (request.beam_width > 0) {
      CHECK(beams.at(raw(request.id)) == fake::expected_beams(request));
      continue;
    }
    for (std::uint32_t sample = 0; sample < request.num_samples; ++sample) {
      CHECK(outputs.at({raw(request.id), sample}) == fake::expected_output(request, sample, 9));
    }
  }
}
