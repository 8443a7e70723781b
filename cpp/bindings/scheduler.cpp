#include "pagedcore/scheduler.hpp"

#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/records.hpp"
#include "pagedcore/trace.hpp"

namespace pagedcore::bindings {
namespace {

void bind_requests(nb::module_& m) {
  Record<SchedulerConfig>(m, "SchedulerConfig", "Budgets of one step.");
  m.def("validate", nb::overload_cast<const SchedulerConfig&>(&validate), "config"_a,
        "Raises InvalidArgument for a value outside its range.");
  m.attr("MOST_PRIORITY") = kMostPriority;
  Record<PreemptionCosts>(m, "PreemptionCosts", "Measured costs in seconds; 0: not known yet.");
  Record<SchedulerRequest>(m, "SchedulerRequest", "A request to a bare scheduler.");
}

void bind_plan(nb::module_& m) {
  Record<ScheduledSequence>(m, "ScheduledSequence", "Rows that one sequence contributes to a step.");
  Record<SwappedRequest>(m, "SwappedRequest", "A request that a step moves, and how many of the moves are its own.");
  using P = StepPlan;
  Record<P>(m, "StepPlan", "All that an executor needs for one step.").python().def("__bool__", [](const P& self) {
    return !self.empty();
  });
}

void bind_result(nb::module_& m) {
  Record<SampledToken>(m, "SampledToken", "One token sampled by an executor.");
  Record<BeamChild>(m, "BeamChild", "A beam of the next step: beam `parent` of this one with one token more.");
  Record<BeamResult>(m, "BeamResult", "What a beam search goes on with.");
  m.def(
      "place_beams", [](const std::vector<BeamChild>& children) { return place_beams(children); }, "children"_a,
      "Which beam every child becomes.");
  Record<StepResult>(m, "StepResult", "What an executor made of a plan.");
  Record<SampleUpdate>(m, "SampleUpdate", "What became of one sample in a step.");
  Record<SchedulerStats>(m, "SchedulerStats", "Counters since construction, and the queues now.");
}

void bind_trace(nb::module_& m) {
  Record<TraceReplay>(m, "TraceReplay", "What came of replaying a trace.");
  m.def(
      "replay_trace", [](const FilePath& path) { return replay_trace(path.bytes); }, "path"_a, release_gil(),
      "Feeds a trace to a new scheduler and compares the plans. Raises Io or Corrupt, with the line.");
}

void bind_scheduler_class(nb::module_& m) {
  nb::class_<Scheduler>(m, "Scheduler", "plan() decides the next step, commit() takes its results in.")
      .def(nb::init<const SchedulerConfig&, const KvCacheConfig&>(), "config"_a, "cache"_a)
      .def_prop_ro("config", [](const Scheduler& self) -> SchedulerConfig { return self.config(); })
      .def_prop_ro(
          "cache", [](const Scheduler& self) { return KvCacheView{&self.cache()}; }, nb::keep_alive<0, 1>(),
          "To look at: only the scheduler changes it.")
      .def("clear_prefix_cache", &Scheduler::clear_prefix_cache, "Forgets all cached prefixes.")
      .def("take_events", &Scheduler::take_events, "News of the prefix cache since the last call, oldest first.")
      .def("submit", &Scheduler::submit, "request"_a)
      .def("validate", &Scheduler::validate, "request"_a, "The checks of submit() alone.")
      .def("abort", &Scheduler::abort, "id"_a, "False if the id is unknown.")
      .def(
          "extend",
          [](Scheduler& self, RequestId id, std::uint32_t sample, const std::vector<TokenId>& tokens, bool scored) {
            return self.extend(id, sample, tokens, scored);
          },
          "id"_a, "sample"_a, "tokens"_a, "scored"_a = false,
          "Tokens that come after a sample's last one whatever is drawn; returns how many are taken.")
      .def("plan", nb::overload_cast<double>(&Scheduler::plan), "now"_a = 0.0)
      .def("commit", &Scheduler::commit, "result"_a)
      .def_prop_ro("has_work", &Scheduler::has_work)
      .def_prop_ro("stats", &Scheduler::stats)
      .def(
          "tokens", [](const Scheduler& self, RequestId id, std::uint32_t sample) { return self.tokens(id, sample); },
          "id"_a, "sample"_a = 0, "Prompt, then output; empty when unknown.")
      .def("check", &Scheduler::check, "Verifies every invariant; raises Corrupt.")
      .def(
          "register_prefix", &Scheduler::register_prefix, "id"_a, "prefix"_a, "shared"_a = false,
          "Computes a prefix and keeps its blocks until release_prefix(). It belongs to its salt, unless it is shared.")
      .def("release_prefix", &Scheduler::release_prefix, "id"_a)
      .def("set_preemption_costs", &Scheduler::set_preemption_costs, "costs"_a)
      .def(
          "force_preempt",
          [](Scheduler& self, RequestId id, std::string_view mode) {
            return self.force_preempt(id, word<PreemptionMode>("mode", mode));
          },
          "id"_a, "mode"_a = "recompute",
          nb::sig(str("def force_preempt(self, id: int, mode: ", PythonType<PreemptionMode>::name(),
                      " = 'recompute') -> bool")
                      .c_str()));
}

}  // namespace

void bind_scheduler(nb::module_& m) {
  bind_requests(m);
  bind_plan(m);
  bind_result(m);
  bind_trace(m);
  bind_scheduler_class(m);
}

}  // namespace pagedcore::bindings
