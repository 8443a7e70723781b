// Carries out the draft of a plan.
#include <algorithm>

#include "base/grow_capacity.hpp"
#include "scheduler/apply.hpp"

namespace pagedcore::sched {

namespace {

/// Runs `undo(number of those done)` unless all were done.
template <class Range, class Do, class Undo>
void all_or_none(const Range& range, const Do& act, const Undo& undo) {
  std::size_t done = 0;
  try {
    for (; done < range.size(); ++done) act(range[done]);
  } catch (...) {
    for (std::size_t i = 0; i < done; ++i) undo(range[i]);
    throw;
  }
}

template <class Moves>
void reserve_swaps(KvCacheManager& cache, const Moves& moves, std::vector<BlockSwap>& swaps) {
  std::size_t most = 0;  // shared blocks counted for every sequence: what each call may ask for, not what it needs
  for (const auto& move : moves) {
    for (const SequenceId sequence : move.sequences) {
      cache.reserve_swap(sequence);
      most += cache.block_table(sequence).size();
    }
  }
  grow_capacity(swaps, most);
}

void swap_out(SchedulerState& state, const Departure& swap, StepPlan& plan) {
  Request& request = state.own(*swap.request);
  const std::size_t before = plan.swap_outs.size();
  state.cache.swap_out(swap.sequences, plan.swap_outs, request.last_step);
  const auto moves = static_cast<std::uint32_t>(plan.swap_outs.size() - before);
  plan.swapped_out.push_back({request.id, moves});
  state.flight.moving.push_back(request.id);
  state.stats.blocks_swapped_out += moves;
  state.swap_out(request);
}

void swap_in(SchedulerState& state, const SwapIn& swap, StepPlan& plan) {
  Request& request = state.own(*swap.request);
  const std::size_t before = plan.swap_ins.size();
  state.cache.swap_in(swap.sequences, plan.swap_ins);
  const auto moves = static_cast<std::uint32_t>(plan.swap_ins.size() - before);
  plan.swapped_in.push_back({request.id, moves});
  state.flight.moving.push_back(request.id);
  state.stats.blocks_swapped_in += moves;
  state.swap_in(request);
}

void admit(SchedulerState& state, const Admission& admission, const Work& work) {
  Request& request = state.own(*admission.request);
  Sample& leader = request.samples[work.sample];
  leader.sequence = work.sequence;
  leader.computed = work.first;
  leader.block_end = 0;
  const bool is_new = leader.computed_before == 0;
  leader.computed_before = std::max(leader.computed_before, work.first);
  leader.started = true;
  --request.unstarted;
  request.tenant->served += charge_of(state.config, request, work.first);
  request.progress.charged = true;
  request.progress.cached_at_admission = work.first;
  state.admit(request);
  std::uint64_t& hits = !is_new                 ? state.stats.preemption_hit_tokens
                        : admission.from_prefix ? state.stats.pinned_hit_tokens
                                                : state.stats.prefix_hit_tokens;
  hits += is_new ? std::min(work.first, request.limits.prompt_size) : work.first;
}

/// Gives the work of a step its slots, and the plan its sequences. One pass: each of them lies elsewhere in memory.
void launch(SchedulerState& state, const std::vector<Work>& planned, StepPlan& plan) {
  plan.step = state.flight.step = StepId{state.next.step++};
  const std::uint32_t groups = state.rules.num_layer_groups;
  std::vector<Work>& flight = state.flight.work;
  std::uint32_t draws_planned = 0;
  std::size_t entries = 0;
  for (std::size_t i = 0; i < planned.size(); ++i) {
    look_ahead(planned, i);
    Work& work = flight.emplace_back(planned[i]);
    work.first_draw = draws_planned;
    draws_planned += work.num_samples;
    Request& request = state.own(*work.request);
    const std::uint32_t last_prompt = request.limits.prompt_size - 1;  // it predicts no prompt token
    const std::uint32_t scorable = request.progress.scores && last_prompt > work.first ? last_prompt - work.first : 0;
    if (request.last_step != plan.step) {
      request.last_step = plan.step;
      request.first_work = static_cast<std::uint32_t>(i);
    }
    const auto table = state.cache.append(work.sequence, work.end(), plan.copies, plan.step);
    const std::size_t size = groups == 1 ? table.size() : table.size() / groups;
    plan.sequences.push_back({.request = request.id,
                              .sequence = work.sequence,
                              .first_sample = work.sample,
                              .num_samples = work.num_samples,
                              .first_row = static_cast<std::uint32_t>(plan.tokens.size()),
                              .num_rows = work.rows,
                              .first_position = work.first,
                              .num_scored = std::min(scorable, work.rows),
                              .table_offset = static_cast<std::uint32_t>(entries),
                              .table_size = static_cast<std::uint32_t>(size)});
    request.copy_tokens(request.samples[work.sample], work.first, work.end(), plan.tokens);
    if (groups == 1) {
      plan.block_tables.insert(plan.block_tables.end(), table.begin(), table.end());
    } else {
      for (std::size_t entry = 0; entry < table.size(); ++entry) {
        plan.block_tables[entry % groups * plan.table_entries + entries + entry / groups] = table[entry];
      }
    }
    entries += size;
  }
  state.stats.block_copies += plan.copies.size();
}

}  // namespace

void gather_memory(SchedulerState& state, const Draft& draft, StepPlan& plan) {
  const Decisions& decisions = draft.decisions();
  KvCacheManager& cache = state.cache;
  grow_capacity(state.flight.work, decisions.work.size());
  grow_capacity(state.flight.moving, decisions.preemptions + decisions.swap_ins.size());
  reserve_swaps(cache, decisions.departures, plan.swap_outs);
  reserve_swaps(cache, decisions.swap_ins, plan.swap_ins);
  const auto prepare = [&](const Admission& admission) {
    const Work& work = decisions.work[admission.work];
    const Request& request = *admission.request;
    if (admission.from_prefix) {
      cache.prepare_fork(request.prefix_used->sequence, work.sequence, work.first);
    } else {
      cache.prepare(work.sequence, work.end(), request.salt, admission.match, admission.group);
    }
  };
  const auto forget = [&](const Admission& admission) {
    cache.free(decisions.work[admission.work].sequence, StepId{0});
  };
  all_or_none(decisions.admissions, prepare, forget);
  try {
    for (const Work& work : decisions.work) {
      const std::uint32_t filled = work.first % state.rules.block_size;  // most decodes stay in their last block
      if (filled == 0 || filled + work.rows > state.rules.block_size) cache.reserve(work.sequence, work.end());
    }
  } catch (...) {
    std::ranges::for_each(decisions.admissions, forget);
    throw;
  }
}

namespace {

void change(SchedulerState& state, const Draft& draft, StepPlan& plan) {
  const Decisions& decisions = draft.decisions();
  state.stats.prefix_waits += decisions.begin_to_wait.size();
  state.stats.swap_fallbacks += decisions.swap_fallbacks;
  for (const Request* request : decisions.begin_to_wait) state.own(*request).progress.waited = true;
  for (const Request* request : decisions.store_reads) {
    state.own(*request).progress.reads_store = true;
    plan.store_reads.push_back(request->id);
  }
  state.preempted.clear();
  state.swaps_forced = false;
  // What a match found is held before anything is freed or taken.
  for (const Admission& admission : decisions.admissions) {
    const Work& work = decisions.work[admission.work];
    const Request& request = *admission.request;
    if (admission.from_prefix) {
      state.cache.start_fork(request.prefix_used->sequence, work.sequence, work.first, request.salt);
    } else {
      state.cache.start(work.sequence, request.salt, admission.match, admission.group);
    }
  }
  for (const Departure& departure : decisions.departures) {
    switch (departure.kind) {
      case Departure::Kind::recompute:
        state.preempt(state.own(*departure.request));
        break;
      case Departure::Kind::swap:
        swap_out(state, departure, plan);
        break;
      case Departure::Kind::discard:
        state.discard_swapped(state.own(*departure.request));
    }
  }
  for (const SwapIn& swap : decisions.swap_ins) swap_in(state, swap, plan);
  for (const Admission& admission : decisions.admissions) admit(state, admission, decisions.work[admission.work]);
  state.next.sequence += decisions.admissions.size();
  if (draft.has_looked_at_waiting()) state.waiting.list_grown();
  if (decisions.work.empty() && plan.swap_outs.empty() && plan.swap_ins.empty()) {
    state.flight.moving.clear();  // no step, so none that could fail to move them
    return;
  }
  launch(state, decisions.work, plan);
}

}  // namespace

void apply(SchedulerState& state, const Draft& draft, StepPlan& plan) noexcept {
  state.carry_out([&] { change(state, draft, plan); });
}

}  // namespace pagedcore::sched
