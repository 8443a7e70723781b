#include "pagedcore/simulation.hpp"

#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/records.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::bindings {
namespace {

using Parts = std::vector<std::pair<std::uint64_t, std::uint32_t>>;

std::vector<PromptPart> parts_of(const Parts& prompt) {
  std::vector<PromptPart> parts;
  parts.reserve(prompt.size());
  for (const auto& [content, tokens] : prompt) parts.push_back({content, tokens});
  return parts;
}

std::vector<SimulatedRequest> requests_of(const std::vector<double>& arrivals, const std::vector<Parts>& prompts,
                                          const std::vector<std::uint32_t>& outputs, std::uint32_t num_samples,
                                          std::uint32_t beam_width, std::uint32_t max_tokens,
                                          const std::vector<std::int32_t>& priorities,
                                          const std::vector<std::uint64_t>& tenants) {
  const auto is_given = [&](const auto& values) { return values.size() == arrivals.size(); };
  if (!is_given(prompts) || !is_given(outputs) || !(priorities.empty() || is_given(priorities)) ||
      !(tenants.empty() || is_given(tenants))) {
    throw InvalidArgument(
        "arrivals, prompts, outputs, priorities and tenants differ in length; give one of each for every request");
  }
  std::vector<SimulatedRequest> requests(arrivals.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    SimulatedRequest& request = requests[i];
    request.arrival = arrivals[i];
    request.prompt = parts_of(prompts[i]);
    request.output = outputs[i];
    request.num_samples = num_samples;
    request.beam_width = beam_width;
    request.max_tokens = max_tokens;
    if (!priorities.empty()) request.priority = priorities[i];
    if (!tenants.empty()) request.tenant = tenants[i];
  }
  return requests;
}

std::size_t add(Simulation& self, double arrival, const Parts& prompt, std::uint32_t output, std::uint32_t max_tokens,
                std::int32_t priority, std::uint64_t tenant) {
  SimulatedRequest request;
  request.arrival = arrival;
  request.prompt = parts_of(prompt);
  request.output = output;
  request.max_tokens = max_tokens;
  request.priority = priority;
  request.tenant = tenant;
  return self.add(std::move(request));
}

void bind_records(nb::module_& m) {
  Record<CostModel>(m, "CostModel", "What a step costs, in seconds.");
  Record<StepWork>(m, "StepWork", "What a plan asks of an executor, in the terms of CostModel.");
  Record<TimedStep>(m, "TimedStep", "A step of a real engine, and how long it took.");
  m.def("timed_steps", &timed_steps, "trace"_a, release_gil(),
        "The steps of a trace, each until the next one was planned; less those after which there was nothing to do. "
        "Raises as replay_trace() does.");
  Record<SimulationConfig>(m, "SimulationConfig", "What serves, and what it costs.");
  m.def(
      "simulated_tokens", [](const Parts& prompt) { return simulated_tokens(parts_of(prompt)); }, "prompt"_a,
      "The tokens that a simulation makes of a prompt, a list of (content, tokens).");
  Record<SimulationReport>(m, "SimulationReport", "Averages over the window; shares are of all token slots.");
}

}  // namespace

void bind_simulation(nb::module_& m) {
  bind_records(m);
  nb::class_<Simulation>(m, "Simulation", "The scheduler under an executor that prices plans on a virtual clock.")
      .def(
          "__init__",
          [](Simulation* self, const SimulationConfig& config, const std::vector<double>& arrivals,
             const std::vector<Parts>& prompts, const std::vector<std::uint32_t>& outputs, std::uint32_t num_samples,
             std::uint32_t beam_width, std::uint32_t max_tokens, const std::vector<std::int32_t>& priorities,
             const std::vector<std::uint64_t>& tenants) {
            new (self) Simulation(config, requests_of(arrivals, prompts, outputs, num_samples, beam_width, max_tokens,
                                                      priorities, tenants));
          },
          "config"_a, "arrivals"_a, "prompts"_a, "outputs"_a, "num_samples"_a = 1, "beam_width"_a = 0,
          "max_tokens"_a = 0, "priorities"_a = std::vector<std::int32_t>{}, "tenants"_a = std::vector<std::uint64_t>{},
          "A prompt is a list of (content, tokens); equal contents are equal tokens. max_tokens is what requests ask "
          "for, 0: just their output.")
      .def("run", &Simulation::run, "max_steps"_a, release_gil(),
           "Makes up to so many steps; False when there is nothing more to do.")
      .def("add", &add, "arrival"_a, "prompt"_a, "output"_a, "max_tokens"_a = 0, "priority"_a = 0, "tenant"_a = 0,
           "A request behind those that are there, which arrives no earlier than they do; returns its index. Where the "
           "clock is past its arrival, it came while a step ran.")
      .def("run_until", &Simulation::run_until, "seconds"_a, release_gil(),
           "Makes the steps that begin before this time; idle, the clock goes on to it.")
      .def("take_ended", &Simulation::take_ended, "Indices of the requests that have ended since the last call.")
      .def("take_events", &Simulation::take_events, "News of the prefix cache since the last call, oldest first.")
      .def("snapshot", &Simulation::snapshot, "limits"_a = SnapshotLimits{},
           nb::sig("def snapshot(self, limits: SnapshotLimits = ...) -> EngineSnapshot"),
           "What an engine's snapshot shows, but for the steps.")
      .def("cache_counts", [](const Simulation& self) { return self.scheduler().cache().counts(); })
      .def("report", &Simulation::report)
      .def_prop_ro("first_token", [](const Simulation& self) -> std::vector<double> { return self.first_token(); })
      .def_prop_ro("finish", [](const Simulation& self) -> std::vector<double> { return self.finish(); })
      .def("last_plan", &Simulation::last_plan, "The latest plan, as a trace writes it.");
}

}  // namespace pagedcore::bindings
