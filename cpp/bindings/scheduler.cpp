#include "pagedcore/scheduler.hpp"

#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/names.hpp"
#include "bindings/records.hpp"
#include "pagedcore/trace.hpp"

namespace pagedcore::bindings {
namespace {

void bind_requests(nb::module_& m) {
  using Config = SchedulerConfig;
  Record<Config>(m, "SchedulerConfig", "Budgets of one step.").listed();
  using Costs = PreemptionCosts;
  Record<Costs>(m, "PreemptionCosts", "Measured costs in seconds; 0: not known yet.")
      .field("token", &Costs::token, "Of computing one.")
      .field("block_out", &Costs::block_out, "Of moving one to the swap space.")
      .field("block_in", &Costs::block_in, "And back.");
  using Request = SchedulerRequest;
  Record<Request>(m, "SchedulerRequest", "A request to a bare scheduler.")
      .field("id", &Request::id)
      .field("arrival", &Request::arrival, "Seconds on the caller's clock.")
      .field("prompt", &Request::prompt)
      .field("num_samples", &Request::num_samples)
      .field("beam_width", &Request::beam_width, "> 0: a beam search of this width.")
      .field("max_tokens", &Request::max_tokens, "Per sample; 0: only compute the prompt.")
      .field("salt", &Request::salt, "Different salts never share cached prefixes.")
      .field("prompt_logprobs", &Request::prompt_logprobs, "Every prompt row is scored.")
      .field("prefix", &Request::prefix, "A registered prefix with which the prompt begins; 0: none.")
      .field("priority", &Request::priority, "Higher goes first, with order 'priority'.")
      .field("tenant", &Request::tenant, "Who is served by it, for order 'fair'.");
}

void bind_plan(nb::module_& m) {
  using S = ScheduledSequence;
  Record<S>(m, "ScheduledSequence", "Rows that one sequence contributes to a step.")
      .field("request", &S::request)
      .field("sequence", &S::sequence)
      .field("first_sample", &S::first_sample)
      .field("num_samples", &S::num_samples, "> 0: the last row is sampled for this many samples.")
      .field("first_row", &S::first_row, "In StepPlan.tokens.")
      .field("num_rows", &S::num_rows)
      .field("first_position", &S::first_position)
      .field("num_scored", &S::num_scored, "Rows that predict prompt tokens.")
      .field("table_offset", &S::table_offset, "In StepPlan.block_tables.")
      .field("table_size", &S::table_size);
  using W = SwappedRequest;
  Record<W>(m, "SwappedRequest", "A request that a step moves, and how many of the moves are its own.")
      .field("request", &W::request)
      .field("num_moves", &W::num_moves);
  using P = StepPlan;
  Record<P>(m, "StepPlan", "All that an executor needs for one step.")
      .field("step", &P::step)
      .field("swap_outs", &P::swap_outs, "To be done first, then swap_ins, then copies.")
      .field("swap_ins", &P::swap_ins)
      .field("copies", &P::copies, "One operation.")
      .field("sequences", &P::sequences)
      .field("tokens", &P::tokens, "One per row.")
      .field("block_tables", &P::block_tables, "[groups][table_entries], tables one behind the other.")
      .field("table_entries", &P::table_entries, "Of all sequences together, in one group.")
      .field("swapped_out", &P::swapped_out, "Whose swap_outs those are, in order.")
      .field("swapped_in", &P::swapped_in, "They compute from the next step on.")
      .field("preempted", &P::preempted, "Requests preempted while planning.")
      .python()
      .def("__bool__", [](const P& self) { return !self.empty(); });
}

void bind_result(nb::module_& m) {
  using T = SampledToken;
  Record<T>(m, "SampledToken", "One token sampled by an executor.")
      .field("sequence", &T::sequence)
      .field("sample", &T::sample)
      .field("token", &T::token)
      .field("stop", &T::stop, "The token ended the sample.");
  using C = BeamChild;
  Record<C>(m, "BeamChild", "A beam of the next step: beam `parent` of this one with one token more.")
      .field("parent", &C::parent)
      .field("token", &C::token);
  using B = BeamResult;
  Record<B>(m, "BeamResult", "What a beam search goes on with.")
      .field("request", &B::request)
      .field("children", &B::children, "None: the search has ended.");
  m.def(
      "place_beams", [](const std::vector<BeamChild>& children) { return place_beams(children); }, "children"_a,
      "Which beam every child becomes.");
  using R = StepResult;
  Record<R>(m, "StepResult", "What an executor made of a plan.")
      .field("step", &R::step)
      .field("tokens", &R::tokens, "Exactly those the plan asked for, less those of failed requests.")
      .field("failed", &R::failed, "Requests that cannot go on.")
      .field("beams", &R::beams, "One for each beam search that the plan sampled.")
      .field("swap_failed", &R::swap_failed, "Requests of the plan's swaps that lost a block.");
  using U = SampleUpdate;
  Record<U>(m, "SampleUpdate", "What became of one sample in a step.")
      .field("request", &U::request)
      .field("sample", &U::sample)
      .field("token", &U::token, "-1: no token.")
      .field("finish", &U::finish, kFinishReasons, "'none', 'stop', 'length', 'abort' or 'error'.");
  using Stats = SchedulerStats;
  Record<Stats>(m, "SchedulerStats", "Counters since construction, and the queues now.")
      .field("steps", &Stats::steps)
      .field("tokens_computed", &Stats::tokens_computed)
      .field("tokens_sampled", &Stats::tokens_sampled)
      .field("tokens_recomputed", &Stats::tokens_recomputed)
      .field("prefix_hit_tokens", &Stats::prefix_hit_tokens)
      .field("pinned_hit_tokens", &Stats::pinned_hit_tokens)
      .field("prefix_waits", &Stats::prefix_waits)
      .field("preemptions_recompute", &Stats::preemptions_recompute)
      .field("preemptions_swap", &Stats::preemptions_swap)
      .field("preemption_hit_tokens", &Stats::preemption_hit_tokens)
      .field("swap_fallbacks", &Stats::swap_fallbacks)
      .field("blocks_swapped_out", &Stats::blocks_swapped_out)
      .field("blocks_swapped_in", &Stats::blocks_swapped_in)
      .field("forks", &Stats::forks)
      .field("block_copies", &Stats::block_copies)
      .field("waiting", &Stats::waiting)
      .field("running", &Stats::running)
      .field("swapped", &Stats::swapped)
      .field("prefixes", &Stats::prefixes)
      .field("blocks_pinned", &Stats::blocks_pinned)
      .field("tokens_cached", &Stats::tokens_cached)
      .field("slots_unused", &Stats::slots_unused)
      .field("slots_reserved", &Stats::slots_reserved)
      .field("slots_overreserved", &Stats::slots_overreserved);
}

void bind_trace(nb::module_& m) {
  using R = TraceReplay;
  Record<R>(m, "TraceReplay", "What came of replaying a trace.")
      .field("steps", &R::steps, "Steps that were planned alike.")
      .field("requests", &R::requests, "Requests that were submitted.")
      .field("difference", &R::difference, "The first plan that came out otherwise; empty: none.")
      .field("is_complete", &R::is_complete, "False when the last line is cut off.");
  m.def("replay_trace", nb::overload_cast<const std::string&>(&replay_trace), "path"_a, release_gil(),
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
      .def("plan", &Scheduler::plan, "now"_a = 0.0)
      .def("commit", &Scheduler::commit, "result"_a)
      .def_prop_ro("has_work", &Scheduler::has_work)
      .def_prop_ro("stats", &Scheduler::stats)
      .def(
          "tokens",
          [](const Scheduler& self, RequestId id, std::uint32_t sample) {
            const auto tokens = self.tokens(id, sample);
            return std::vector<TokenId>(tokens.begin(), tokens.end());
          },
          "id"_a, "sample"_a = 0, "Prompt, then output; empty when unknown.")
      .def("check", &Scheduler::check, "Verifies every invariant; raises Corrupt.")
      .def("register_prefix", &Scheduler::register_prefix, "id"_a, "prefix"_a,
           "Computes a prefix and keeps its blocks until release_prefix().")
      .def("release_prefix", &Scheduler::release_prefix, "id"_a)
      .def("set_preemption_costs", &Scheduler::set_preemption_costs, "costs"_a)
      .def(
          "force_preempt",
          [](Scheduler& self, RequestId id, std::string_view mode) {
            return self.force_preempt(id, kPreemptionModes.parse("mode", mode));
          },
          "id"_a, "mode"_a = "recompute");
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
