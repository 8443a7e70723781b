#include "pagedcore/simulation.hpp"

#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/records.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::bindings {
namespace {

using Parts = std::vector<std::pair<std::uint64_t, std::uint32_t>>;

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
    for (const auto& [content, tokens] : prompts[i]) request.prompt.push_back({content, tokens});
    request.output = outputs[i];
    request.num_samples = num_samples;
    request.beam_width = beam_width;
    request.max_tokens = max_tokens;
    if (!priorities.empty()) request.priority = priorities[i];
    if (!tenants.empty()) request.tenant = tenants[i];
  }
  return requests;
}

void bind_records(nb::module_& m) {
  using Cost = CostModel;
  Record<Cost>(m, "CostModel", "What a step costs, in seconds.")
      .field("step", &Cost::step, "Of any step.")
      .field("weights", &Cost::weights, "Reading all weights once.")
      .field("row", &Cost::row, "Arithmetic of one row.")
      .field("pair", &Cost::pair, "Of attention, for one row and one token of its context.")
      .field("context_token", &Cost::context_token, "Reading the KV of one token.")
      .field("sample", &Cost::sample, "Of sampling once.")
      .field("copy_block", &Cost::copy_block)
      .field("swap_out_block", &Cost::swap_out_block)
      .field("swap_in_block", &Cost::swap_in_block);
  using Work = StepWork;
  Record<Work>(m, "StepWork", "What a plan asks of an executor, in the terms of CostModel.")
      .field("rows", &Work::rows)
      .field("pairs", &Work::pairs, "(row, context token) pairs of attention.")
      .field("context", &Work::context, "Tokens whose KV is read.")
      .field("samples", &Work::samples)
      .field("copies", &Work::copies, "Blocks.")
      .field("swap_outs", &Work::swap_outs)
      .field("swap_ins", &Work::swap_ins);
  using Timed = TimedStep;
  Record<Timed>(m, "TimedStep", "A step of a real engine, and how long it took.")
      .field("work", &Timed::work)
      .field("seconds", &Timed::seconds);
  m.def("timed_steps", &timed_steps, "trace"_a, release_gil(),
        "The steps of a trace, each until the next one was planned; less those after which there was nothing to do. "
        "Raises as replay_trace() does.");
  using Config = SimulationConfig;
  Record<Config>(m, "SimulationConfig", "What serves, and what it costs.")
      .field("scheduler", &Config::scheduler)
      .field("cache", &Config::cache)
      .field("cost", &Config::cost)
      .field("batch_requests", &Config::batch_requests, "Request-level batches of so many; 0: iteration-level.")
      .field("batch_tokens", &Config::batch_tokens, "Longest prompt and longest output of such a batch together.")
      .field("beam_mixing", &Config::beam_mixing, "Chance that a beam goes on from a random one's past.")
      .field("copy_reservations", &Config::copy_reservations, "A fork copies all that was set aside, unless paged.")
      .field("window_begin", &Config::window_begin, "Averages are over this part of the virtual time.")
      .field("window_end", &Config::window_end)
      .field("stop", &Config::stop, "End here.");
  using R = SimulationReport;
  Record<R>(m, "SimulationReport", "Averages over the window; shares are of all token slots.")
      .field("steps", &R::steps)
      .field("finished", &R::finished)
      .field("now", &R::now)
      .field("seconds", &R::seconds)
      .field("requests", &R::requests)
      .field("sequences", &R::sequences)
      .field("token_states", &R::token_states)
      .field("reserved", &R::reserved)
      .field("internal", &R::internal)
      .field("allocated", &R::allocated)
      .field("sharing", &R::sharing)
      .field("tokens", &R::tokens)
      .field("scheduler", &R::scheduler);
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
      .def("report", &Simulation::report)
      .def_prop_ro("first_token", [](const Simulation& self) -> std::vector<double> { return self.first_token(); })
      .def_prop_ro("finish", [](const Simulation& self) -> std::vector<double> { return self.finish(); })
      .def("last_plan", &Simulation::last_plan, "The latest plan, as a trace writes it.");
}

}  // namespace pagedcore::bindings
