// A scheduler with the executor without a model: submit, step, and see what came out.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "fake_executor.hpp"

namespace fake {

/// A scheduler with an executor, and everything that came out.
struct Service {
  Service(const SchedulerConfig& config, const KvCacheConfig& cache, std::uint64_t stop_every = 0)
      : scheduler(config, cache), executor(cache, stop_every) {}

  void submit(const SchedulerRequest& request) {
    scheduler.submit(request);
    requests[raw(request.id)] = request;
    if (request.beam_width == 0) return;
    fake::Executor::Search& search = executor.searches[raw(request.id)];
    search.width = request.beam_width;
    search.max_tokens = request.max_tokens;
  }

  /// One step, or a plan that only moves requests between queues; false when there was nothing to plan.
  bool step() {
    const StepPlan plan = scheduler.plan(0.0);
    scheduler.check();
    if (plan.empty()) return plan.plan_again();
    std::map<std::uint64_t, std::set<std::uint32_t>> sampled;
    for (const ScheduledSequence& s : plan.sequences) {
      if (s.num_samples > 0 && requests.at(raw(s.request)).beam_width > 0)
        sampled[raw(s.request)].insert(s.first_sample);
    }
    const StepResult result = executor.run(plan);
    for (const BeamResult& beam : result.beams) {
      if (!beam.children.empty()) continue;
      for (const BeamChild& child : executor.searches.at(raw(beam.request)).last) {
        const auto tokens = scheduler.tokens(beam.request, child.parent);
        const auto prompt = static_cast<std::ptrdiff_t>(requests.at(raw(beam.request)).prompt.size());
        beams[raw(beam.request)].emplace_back(tokens.begin() + prompt, tokens.end()).push_back(child.token);
      }
    }
    for (const SampleUpdate& update : scheduler.commit(result)) {
      if (update.token >= 0) samples[{raw(update.request), update.sample}].push_back(update.token);
    }
    most_used = std::max(most_used, scheduler.cache().counts().used);
    scheduler.check();
    return true;
  }

  void finish() {
    for (int steps = 0; scheduler.has_work(); ++steps) {
      REQUIRE(steps < 20000);
      REQUIRE(step());
    }
    CHECK(scheduler.cache().counts().used == 0);
  }

  Scheduler scheduler;
  fake::Executor executor;
  std::map<std::uint64_t, SchedulerRequest> requests;
  std::map<std::uint64_t, std::vector<std::vector<TokenId>>> beams;
  std::map<std::pair<std::uint64_t, std::uint32_t>, std::vector<TokenId>> samples;
  std::uint32_t most_used = 0;
};

}  // namespace fake
