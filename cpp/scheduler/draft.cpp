// Running requests first, in the order of service; those who wait are for policy/admission.cpp.
#include "scheduler/draft.hpp"

#include <algorithm>

#include "base/grow_capacity.hpp"

namespace pagedcore::sched {

void Draft::clear() noexcept {
  scratch_.reset();
  decisions_.work.clear();
  decisions_.departures.clear();
  decisions_.swap_ins.clear();
  decisions_.admissions.clear();
  decisions_.begin_to_wait.clear();
  decisions_.store_reads.clear();
  decisions_.preemptions = 0;
  decisions_.swap_fallbacks = 0;
  if (!departed_.empty()) departed_ = {};
}

void Draft::decide() {
  scratch_.emplace(state_.cache.scratch());
  rows_left_ = state_.config.max_batched_tokens;
  sequences_left_ = state_.config.max_sequences;
  available_ = scratch_->available();
  promised_ = 0;
  running_samples_ = 0;
  if (state_.rules.looks_ahead) outlook_ = {};
  wanted_ = 0;
  passed_ = 0;
  closed_ = false;
  has_listed_computing_ = false;
  walk_.begin(state_.waiting);
  const Request* const first = state_.running.front();
  if (state_.swaps_forced) {
    for (const Request* request = first; request != nullptr; request = request->place.next) {
      if (request->forced == Forced::swap_in_next_plan) preempt(*request);
    }
  }
  for (const Request* request = first; request != nullptr; request = request->place.next) {
    if (const Request* next = request->place.next) {  // as look_ahead(), as far as links lead
      __builtin_prefetch(next->samples.data());
      prefetch(next->place.next);
    }
    if (has_departed(*request)) continue;
    if (state_.rules.preempts_for_waiting && !admit(request)) return;
    if (is_full()) return;
    continue_running(*request);
  }
  admit(nullptr);
}

/// Every started sample computes what budgets allow of the tokens it lacks. When blocks are short, later requests go;
/// when there are none, this one goes.
void Draft::continue_running(const Request& request) {
  const std::size_t before = decisions_.work.size();
  // A group decodes as one: all of its sequences in a step, or none, unless it is too large for any step.
  const bool is_gang = is_ready(request) && request.unfinished <= state_.config.max_sequences &&
                       request.unfinished <= state_.config.max_batched_tokens;
  const bool waits = is_gang && (request.unfinished > rows_left_ || request.unfinished > sequences_left_);
  for (std::uint32_t i = 0; i < request.samples.size(); ++i) {
    const Sample& sample = request.samples[i];
    if (sample.is_finished()) continue;
    if (!sample.started) {
      if (request.limits.max_tokens > 1) {
        promise(request, sample, state_.shared_tokens(request));
      }
      continue;
    }
    if (is_full()) return;
    const std::uint32_t lacks = (is_gang ? request.size(sample) : request.target(sample)) - sample.computed;
    const std::uint32_t rows = std::min(waits ? 0 : lacks, rows_left_);
    if (rows == 0) {
      promise(request, sample, sample.computed);
      continue;
    }
    while (!request.stays_in_block(sample, rows, state_.rules.block_size) &&
           !scratch_->append(sample.sequence, sample.computed + rows)) {
      if (preempt_behind(request)) continue;
      decisions_.work.resize(before);
      return;
    }
    add_work(request, i, sample.sequence, sample.computed, rows);
    promise(request, sample, sample.computed + rows);
  }
  running_samples_ += request.group_size();
  if (state_.rules.looks_ahead && !state_.waiting.empty()) foresee(outlook_, request);
}

/// Nobody else asks than those who wait.
void Draft::promise(const Request& request, const Sample& sample, std::uint32_t has) {
  if (!state_.waiting.empty()) promised_ += state_.blocks_promised(request, sample, has);
}

/// Whether every sequence of the group lacks exactly its last token.
bool Draft::is_ready(const Request& request) noexcept {
  return std::ranges::all_of(request.samples, [&](const Sample& sample) {
    return sample.is_finished() || (sample.started && sample.computed + 1 == request.size(sample));
  });
}

/// Only the first unsampled position is ever sampled, and the first of all once for every sample.
void Draft::add_work(const Request& request, std::uint32_t sample, SequenceId sequence, std::uint32_t first,
                     std::uint32_t rows) {
  const bool samples = request.limits.max_tokens > 0 && first + rows == request.size(request.samples[sample]);
  const bool draws_once = request.progress.sampled || request.is_beam_search();
  const std::uint32_t count = draws_once ? 1 : static_cast<std::uint32_t>(request.samples.size());
  const std::vector<TokenId>& tokens = request.samples[sample].tokens;
  const bool is_plain =
      samples && count == 1 && !request.is_beam_search() && request.unstarted == 0 && tokens.size() < tokens.capacity();
  decisions_.work.push_back({.request = &request,
                             .sample = sample,
                             .sequence = sequence,
                             .first = first,
                             .rows = rows,
                             .num_samples = samples ? count : 0,
                             .is_beam = request.is_beam_search(),
                             .is_plain = is_plain});
  rows_left_ -= rows;
  --sequences_left_;
}

namespace {

/// Less its memory.
void empty(StepPlan& plan) noexcept {
  StepPlan::fields([&](const auto& field) {
    auto& member = plan.*field.member;
    if constexpr (requires { member.clear(); }) {
      member.clear();
    } else {
      member = {};
    }
  });
}

}  // namespace

void Draft::draw_up(StepPlan& plan) const {
  empty(plan);
  std::size_t rows = 0, blocks = 0;
  for (const Work& work : decisions_.work) {
    rows += work.rows;
    blocks += state_.cache.blocks_for(work.end());
  }
  grow_capacity(plan.copies, state_.cache.most_copies(decisions_.work.size(), blocks));
  grow_capacity(plan.sequences, decisions_.work.size());
  grow_capacity(plan.tokens, rows);
  if (state_.rules.num_layer_groups == 1) {
    grow_capacity(plan.block_tables, blocks);  // appended to: no time is spent on zeros
  } else {
    plan.block_tables.resize(blocks * state_.rules.num_layer_groups);
  }
  plan.table_entries = static_cast<std::uint32_t>(blocks);
  grow_capacity(plan.preempted, state_.preempted.size() + decisions_.preemptions);
  plan.preempted = state_.preempted;
  for (const Departure& departure : decisions_.departures) {
    if (departure.kind != Departure::Kind::discard) plan.preempted.push_back(departure.request->id);
  }
  grow_capacity(plan.store_reads, decisions_.store_reads.size());
  grow_capacity(plan.swapped_out, decisions_.preemptions);
  grow_capacity(plan.swapped_in, decisions_.swap_ins.size());
}

}  // namespace pagedcore::sched
