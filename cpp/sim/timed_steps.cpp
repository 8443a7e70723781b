// Durations of steps, from the times at which a real engine planned them.
#include <optional>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/simulation.hpp"
#include "pagedcore/trace.hpp"

namespace pagedcore {

std::vector<TimedStep> timed_steps(const std::string& trace) {
  std::vector<TimedStep> steps;
  std::optional<StepWork> before;
  double began = 0.0;
  const TraceReplay replay = replay_trace(trace, [&](double now, const StepPlan& plan, bool was_busy) {
    if (before && was_busy) steps.push_back({*before, now - began});
    before.reset();
    if (!plan.empty()) before = step_work(plan);  // after an empty plan the engine waits
    began = now;
  });
  if (!replay.difference.empty()) {
    throw Corrupt(
        str(trace, ": this scheduler plans otherwise, so the trace tells nothing of it: ", replay.difference));
  }
  return steps;
}

}  // namespace pagedcore
