// Scheduler::plan(): decide on scratch, gather all memory that will be needed, then apply. Only the first two can fail,
// and neither changes anything.
#include <algorithm>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "scheduler/state.hpp"

namespace pagedcore {

using sched::Admission;
using sched::Departure;
using sched::Request;
using sched::Sample;
using sched::Work;

StepPlan Scheduler::Impl::plan() {
  if (raw(outstanding) != 0) {
    throw InvalidArgument(str("step ", raw(outstanding), " is outstanding; commit() its result before planning again"));
  }
  try {
    decide();
    StepPlan plan = draw_up();
    in_flight.reserve(draft.work.size());
    moving.reserve(draft.victims + draft.swap_ins.size());
    prepare_cache(plan);
    apply(plan);
    draft.clear();
    return plan;
  } catch (...) {
    draft.clear();
    throw;
  }
}

void Scheduler::Impl::decide() {
  draft.scratch.emplace(cache.scratch());
  draft.rows_left = config.max_batched_tokens;
  draft.sequences_left = config.max_sequences;
  draft.available = draft.scratch->available();
  draft.promised = 0;
  draft.running_samples = 0;
  draft.outlook = {};
  draft.passed = 0;
  draft.closed = false;
  waiting.begin();
  if (swaps_forced) {
    for (Request* request = running.front(); request != nullptr; request = request->next) {
      if (request->swap_next) evict(*request);
    }
  }
  for (Request* request = running.front(); request != nullptr; request = request->next) {
    if (request->evicted) continue;
    if (preempts_for_waiting && !admit(request)) return;
    if (draft.is_full()) return;
    continue_running(*request);
  }
  admit(nullptr);
}

/// Every started sample computes what budgets allow of the tokens it lacks. When blocks are short, later requests go;
/// when there are none, this one goes.
void Scheduler::Impl::continue_running(Request& request) {
  const std::size_t before = draft.work.size();
  // A group decodes as one: all of its sequences in a step, or none, unless it is too large for any step.
  const bool is_gang = is_ready(request) && request.unfinished <= config.max_sequences &&
                       request.unfinished <= config.max_batched_tokens;
  const bool waits = is_gang && (request.unfinished > draft.rows_left || request.unfinished > draft.sequences_left);
  for (std::uint32_t i = 0; i < request.samples.size(); ++i) {
    const Sample& sample = request.samples[i];
    if (sample.is_finished()) continue;
    if (!sample.started) {
      if (request.max_tokens > 1) draft.promised += blocks_promised(request, sample, shared_tokens(request));
      continue;
    }
    if (draft.is_full()) return;
    const std::uint32_t lacks = (is_gang ? request.size(sample) : request.target(sample)) - sample.computed;
    const std::uint32_t rows = std::min(waits ? 0 : lacks, draft.rows_left);
    if (rows == 0) {
      draft.promised += blocks_promised(request, sample, sample.computed);
      continue;
    }
    while (!draft.scratch->append(sample.sequence, sample.computed + rows)) {
      if (make_room(request)) continue;
      draft.work.resize(before);
      return;
    }
    add_work(request, i, sample.sequence, sample.computed, rows);
    draft.promised += blocks_promised(request, sample, sample.computed + rows);
  }
  draft.running_samples += request.group_size();
  if (looks_ahead() && !waiting.empty()) foresee(draft.outlook, request);
}

/// Whether every sequence of the group lacks exactly its last token.
bool Scheduler::Impl::is_ready(const Request& request) noexcept {
  return std::ranges::all_of(request.samples, [&](const Sample& sample) {
    return sample.is_finished() || (sample.started && sample.computed + 1 == request.size(sample));
  });
}

/// Only the first unsampled position is ever sampled, and the first of all once for every sample.
void Scheduler::Impl::add_work(Request& request, std::uint32_t sample, SequenceId sequence, std::uint32_t first,
                               std::uint32_t rows) {
  const bool samples = request.max_tokens > 0 && first + rows == request.size(request.samples[sample]);
  const bool draws_once = request.sampled || request.is_beam_search();
  const std::uint32_t count = draws_once ? 1 : static_cast<std::uint32_t>(request.samples.size());
  draft.work.push_back({.request = &request,
                        .sample = sample,
                        .sequence = sequence,
                        .first = first,
                        .rows = rows,
                        .num_samples = samples ? count : 0});
  draft.rows_left -= rows;
  --draft.sequences_left;
}

/// The plan as the executor will see it, less the block tables, but with room for them.
StepPlan Scheduler::Impl::draw_up() const {
  StepPlan plan;
  std::size_t rows = 0, blocks = 0;
  for (const Work& work : draft.work) {
    rows += work.rows;
    blocks += cache.blocks_for(work.end());
  }
  // A fork of the contiguous cache copies all it has.
  plan.copies.reserve(draft.work.size() * cache.num_groups() + (paged ? 0 : blocks));
  plan.sequences.reserve(draft.work.size());
  plan.tokens.reserve(rows);
  if (cache.num_groups() == 1) {
    plan.block_tables.reserve(blocks);  // appended to: no time is spent on zeros
  } else {
    plan.block_tables.resize(blocks * cache.num_groups());
  }
  plan.table_entries = static_cast<std::uint32_t>(blocks);
  plan.preempted.reserve(forced.size() + draft.victims);
  plan.preempted = forced;
  for (const Departure& departure : draft.departures) {
    if (departure.kind != Departure::Kind::give_up) plan.preempted.push_back(departure.request->id);
  }
  plan.swapped_out.reserve(draft.victims);
  plan.swapped_in.reserve(draft.swap_ins.size());
  for (const Work& work : draft.work) {
    const Request& request = *work.request;
    const std::uint32_t scorable = request.scores && request.prompt_size - 1 > work.first  //
                                       ? request.prompt_size - 1 - work.first
                                       : 0;
    plan.sequences.push_back({.request = request.id,
                              .sequence = work.sequence,
                              .first_sample = work.sample,
                              .num_samples = work.num_samples,
                              .first_row = static_cast<std::uint32_t>(plan.tokens.size()),
                              .num_rows = work.rows,
                              .first_position = work.first,
                              .num_scored = std::min(scorable, work.rows)});
    const auto tokens = request.samples[work.sample].tokens.begin() + work.first;
    plan.tokens.insert(plan.tokens.end(), tokens, tokens + work.rows);
  }
  return plan;
}

/// Sequences for the admitted, which hold what their prefix matches found, and host memory for all tables and moves. A
/// failure undoes the former.
void Scheduler::Impl::prepare_cache(StepPlan& plan) {
  const auto reserve = [&](const auto& swaps, std::vector<BlockSwap>& moves) {
    std::size_t most = 0;  // shared blocks counted for every sequence: what each call may ask for, not what it needs
    for (const auto& swap : swaps) {
      for (const SequenceId sequence : swap.sequences) {
        cache.reserve_swap(sequence);
        most += cache.block_table(sequence).size();
      }
    }
    moves.reserve(most);
  };
  reserve(draft.departures, plan.swap_outs);
  reserve(draft.swap_ins, plan.swap_ins);
  std::size_t created = 0;
  try {
    for (const Admission& admission : draft.admissions) {
      const Work& work = draft.work[admission.work];
      if (!paged) {
        cache.create_reserved(work.sequence, admission.request->most_sequences(), admission.reserved);
      } else if (admission.from_prefix) {
        cache.fork(admission.request->prefix->sequence, work.sequence, work.first, admission.request->salt);
      } else {
        cache.create(work.sequence, admission.request->salt, admission.match);
      }
      ++created;
    }
    for (const Work& work : draft.work) cache.reserve(work.sequence, work.end());
  } catch (...) {
    for (std::size_t i = 0; i < created; ++i) cache.free(draft.work[draft.admissions[i].work].sequence, StepId{0});
    throw;
  }
}

/// Blocks suffice, since the draft was tried on scratch, and memory is there: nothing below fails.
void Scheduler::Impl::apply(StepPlan& plan) {
  forced.clear();
  swaps_forced = false;
  for (const Departure& departure : draft.departures) {
    switch (departure.kind) {
      case Departure::Kind::recompute:
        preempt(*departure.request);
        break;
      case Departure::Kind::swap:
        swap_out(departure, plan);
        break;
      case Departure::Kind::give_up:
        give_up(*departure.request);
    }
  }
  for (const sched::Swap& swap : draft.swap_ins) swap_in(swap, plan);
  for (const Admission& admission : draft.admissions) {
    Request& request = *admission.request;
    const Work& work = draft.work[admission.work];
    Sample& leader = request.samples[work.sample];
    leader.sequence = work.sequence;
    leader.computed = work.first;
    const bool is_new = leader.computed_before == 0;
    leader.computed_before = std::max(leader.computed_before, work.first);
    leader.started = true;
    --request.unstarted;
    request.found = work.first;
    request.tenant->served += charge(request, work.first);
    request.charged = true;
    start_running(request);
    std::uint64_t& hits = !is_new                 ? stats.preemption_hit_tokens
                          : admission.from_prefix ? stats.pinned_hit_tokens
                                                  : stats.prefix_hit_tokens;
    hits += is_new ? std::min(work.first, request.prompt_size) : work.first;
  }
  next_sequence += draft.admissions.size();
  if (draft.work.empty() && plan.swap_outs.empty() && plan.swap_ins.empty()) return;

  plan.step = outstanding = StepId{next_step++};
  std::uint32_t draws_planned = 0;
  std::size_t entries = 0;
  for (std::size_t i = 0; i < draft.work.size(); ++i) {
    Work& work = draft.work[i];
    work.first_draw = draws_planned;
    draws_planned += work.num_samples;
    work.request->last_step = plan.step;
    cache.append(work.sequence, work.end(), plan.copies, plan.step);
    const auto table = cache.block_table(work.sequence);
    const std::uint32_t groups = cache.num_groups();
    plan.sequences[i].table_offset = static_cast<std::uint32_t>(entries);
    plan.sequences[i].table_size = static_cast<std::uint32_t>(table.size() / groups);
    if (groups == 1) {
      plan.block_tables.insert(plan.block_tables.end(), table.begin(), table.end());
    } else {
      for (std::size_t entry = 0; entry < table.size(); ++entry) {
        plan.block_tables[entry % groups * plan.table_entries + entries + entry / groups] = table[entry];
      }
    }
    entries += table.size() / groups;
  }
  in_flight.assign(draft.work.begin(), draft.work.end());
  stats.block_copies += plan.copies.size();
}

/// To its place among those who wait, as it is.
void Scheduler::Impl::swap_out(const Departure& swap, StepPlan& plan) {
  Request& request = *swap.request;
  const std::size_t before = plan.swap_outs.size();
  cache.swap_out(swap.sequences, plan.swap_outs, request.last_step);
  const auto moves = static_cast<std::uint32_t>(plan.swap_outs.size() - before);
  plan.swapped_out.push_back({request.id, moves});
  moving.push_back(request.id);
  request.swapped = true;
  ++num_swapped;
  stop_running(request);
  ++stats.preemptions_swap;
  stats.blocks_swapped_out += moves;
}

void Scheduler::Impl::swap_in(const sched::Swap& swap, StepPlan& plan) {
  Request& request = *swap.request;
  const std::size_t before = plan.swap_ins.size();
  cache.swap_in(swap.sequences, plan.swap_ins);
  const auto moves = static_cast<std::uint32_t>(plan.swap_ins.size() - before);
  plan.swapped_in.push_back({request.id, moves});
  moving.push_back(request.id);
  request.swapped = false;
  --num_swapped;
  start_running(request);
  stats.blocks_swapped_in += moves;
}

}  // namespace pagedcore
