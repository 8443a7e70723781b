// A service that hands out its plans: for tests that say what a plan must be.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "service.hpp"

namespace doctest {
template <>
struct StringMaker<std::vector<std::uint64_t>> {
  static String convert(const std::vector<std::uint64_t>& ids) {
    String text;
    for (const std::uint64_t id : ids) text += toString(id) + " ";
    return text;
  }
};
}  // namespace doctest

namespace fake {

using Ids = std::vector<std::uint64_t>;

struct Planned : Service {
  using Service::Service;

  /// Plans a step and carries it out.
  StepPlan next() {
    StepPlan plan = scheduler.plan(0.0);
    scheduler.check();
    if (!plan.empty()) take_in(scheduler.commit(executor.run(plan)));
    scheduler.check();
    return plan;
  }
  void take_in(const std::vector<SampleUpdate>& updates) {
    for (const SampleUpdate& update : updates) {
      if (update.token >= 0) samples[{raw(update.request), update.sample}].push_back(update.token);
    }
  }
  void next(int steps) {
    for (int i = 0; i < steps; ++i) next();
  }
  SchedulerStats stats() const { return scheduler.stats(); }
  bool swap(std::uint64_t id) { return scheduler.force_preempt(RequestId{id}, PreemptionMode::swap); }
  /// Whether each request, without beams, generated what it generates alone.
  void check_outputs() {
    for (const auto& [id, request] : requests) {
      for (std::uint32_t k = 0; k < request.num_samples && request.beam_width == 0 && request.max_tokens > 0; ++k) {
        CHECK(samples[{id, k}] == expected_output(request, k, executor.stop_every));
      }
    }
  }
};

inline Ids computed(const StepPlan& plan) {
  Ids ids;
  for (const ScheduledSequence& s : plan.sequences) {
    if (ids.empty() || ids.back() != raw(s.request)) ids.push_back(raw(s.request));
  }
  return ids;
}

inline Ids preempted(const StepPlan& plan) {
  Ids ids;
  for (const RequestId id : plan.preempted) ids.push_back(raw(id));
  return ids;
}

inline Ids swapped_in(const StepPlan& plan) {
  Ids ids;
  for (const SwappedRequest& swapped : plan.swapped_in) ids.push_back(raw(swapped.request));
  return ids;
}

/// A request with this prompt.
inline SchedulerRequest prompted(std::uint64_t id, std::vector<TokenId> prompt, std::uint32_t max_tokens) {
  SchedulerRequest made = request(id, 0, max_tokens);
  made.prompt = std::move(prompt);
  return made;
}

/// `first`, then `count` times `token`.
inline std::vector<TokenId> with(std::vector<TokenId> first, std::size_t count, TokenId token) {
  first.insert(first.end(), count, token);
  return first;
}

}  // namespace fake
