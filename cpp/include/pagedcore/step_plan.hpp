// What flows between a scheduler and an executor: the plan of a step, its result, and what became of every sample.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/fields.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore {

/// Rows that one sequence contributes to a step.
struct ScheduledSequence {
  RequestId request{};
  SequenceId sequence{};
  std::uint32_t first_sample = 0;
  std::uint32_t num_samples = 0;
  std::uint32_t first_row = 0;
  std::uint32_t num_rows = 0;
  std::uint32_t first_position = 0;
  std::uint32_t num_scored = 0;
  std::uint32_t table_offset = 0;
  std::uint32_t table_size = 0;

  template <class V>
  static void fields(V&& v) {
    using S = ScheduledSequence;
    v(field("request", &S::request, ""));
    v(field("sequence", &S::sequence, ""));
    v(field("first_sample", &S::first_sample, "Index of the sequence's sample (or beam) within its request."));
    v(field("num_samples", &S::num_samples,
            "Above 0: the last row is sampled for samples [first_sample, first_sample + num_samples); above 1 only for "
            "the first sampling of a request with several samples. Of a beam: 1 when the row's candidates are wanted, "
            "for all beams in the same step."));
    v(field("first_row", &S::first_row, "In StepPlan::tokens."));
    v(field("num_rows", &S::num_rows, ""));
    v(field("first_position", &S::first_position, "Tokens [first_position, first_position + num_rows) are computed."));
    v(field("num_scored", &S::num_scored,
            "Prompt logprobs: the rows [first_row, first_row + num_scored) predict prompt tokens, of which the request "
            "may want the later ones; scored again if the prompt is recomputed, so keep them by position."));
    v(field("table_offset", &S::table_offset,
            "Of the table of group 0 in StepPlan::block_tables; that of group g lies g * table_entries behind it."));
    v(field("table_size", &S::table_size, ""));
  }
};

/// A request that a step moves, and how many of the moves are its own.
struct SwappedRequest {
  RequestId request{};
  std::uint32_t num_moves = 0;

  template <class V>
  static void fields(V&& v) {
    using R = SwappedRequest;
    v(field("request", &R::request, ""));
    v(field("num_moves", &R::num_moves, "Of the moves, those that are its own."));
  }
};

/// Plain data: all that an executor needs, nothing that points into the scheduler.
struct StepPlan {
  StepId step{};
  std::vector<BlockSwap> swap_outs;
  std::vector<BlockSwap> swap_ins;
  std::vector<BlockCopy> copies;
  std::vector<ScheduledSequence> sequences;
  std::vector<TokenId> tokens;
  std::vector<BlockId> block_tables;
  std::uint32_t table_entries = 0;
  std::vector<SwappedRequest> swapped_out;
  std::vector<SwappedRequest> swapped_in;
  std::vector<RequestId> preempted;
  std::vector<RequestId> store_reads;

  template <class V>
  static void fields(V&& v) {
    using P = StepPlan;
    v(field("step", &P::step,
            "0 for an empty plan, which is not committed. If it preempted or swapped in all the same, plan again."));
    v(field("swap_outs", &P::swap_outs,
            "To be done first, as one operation. A step has swap-outs or swap-ins, never both."));
    v(field("swap_ins", &P::swap_ins, "Likewise."));
    v(field("copies", &P::copies, "To be done next, as one operation, before anything is computed."));
    v(field("sequences", &P::sequences, "What is computed, [sequences]."));
    v(field("tokens", &P::tokens, "[rows]"));
    v(field("block_tables", &P::block_tables,
            "[groups of layers][table_entries]: tables one behind the other. kNoBlock where a window has passed."));
    v(field("table_entries", &P::table_entries, "Of all sequences together, in one group."));
    v(field("swapped_out", &P::swapped_out, "Whose swap_outs those are, in order."));
    v(field("swapped_in", &P::swapped_in, "Likewise; they compute from the next step on."));
    v(field("preempted", &P::preempted, "Requests preempted while planning, for observers."));
    v(field(
        "store_reads", &P::store_reads,
        "Requests that wait from now on for what a store has of their prompt: to be read beside the steps, and then "
        "told by Scheduler::end_store_read(). Of an empty plan too."));
  }

  bool empty() const noexcept { return raw(step) == 0; }
  /// Whether an empty plan made room, or brought requests back whose blocks had all stayed in memory, since others
  /// shared them: nothing is to be run for that, and the next plan goes on from there.
  bool plan_again() const noexcept { return empty() && !(preempted.empty() && swapped_in.empty()); }
};

/// One sampled token. `sequence` is the one that was scheduled; `sample` the index within the request.
struct SampledToken {
  SequenceId sequence{};
  std::uint32_t sample = 0;
  TokenId token = 0;
  bool stop = false;

  template <class V>
  static void fields(V&& v) {
    using T = SampledToken;
    v(field("sequence", &T::sequence, "The one that was scheduled."));
    v(field("sample", &T::sample, "Index within the request."));
    v(field("token", &T::token, ""));
    v(field("stop", &T::stop, "The token ended the sample (a stop token)."));
  }
};

/// A beam of the next step: beam `parent` of this one (an index within the request) with one token more.
struct BeamChild {
  std::uint32_t parent = 0;
  TokenId token = 0;

  template <class V>
  static void fields(V&& v) {
    using C = BeamChild;
    v(field("parent", &C::parent, "Index of a beam of this step within its request."));
    v(field("token", &C::token, "What it goes on with."));
  }
};

/// What a beam search goes on with.
struct BeamResult {
  RequestId request{};
  std::vector<BeamChild> children;

  template <class V>
  static void fields(V&& v) {
    using B = BeamResult;
    v(field("request", &B::request, ""));
    v(field("children", &B::children, "At most beam_width; none: the search has ended."));
  }
};

struct StepResult {
  StepId step{};
  std::vector<SampledToken> tokens;
  std::vector<RequestId> failed;
  std::vector<BeamResult> beams;
  std::vector<RequestId> swap_failed{};

  template <class V>
  static void fields(V&& v) {
    using R = StepResult;
    v(field("step", &R::step, ""));
    v(field("tokens", &R::tokens, "Exactly those that the plan asked for, less those of failed requests."));
    v(field("failed", &R::failed, "Planned requests that cannot go on (their error is the executor's to report)."));
    v(field("beams", &R::beams, "One for each beam search that the plan sampled, less failed ones."));
    v(field("swap_failed", &R::swap_failed,
            "Of the plan's swapped_out and swapped_in: some block was lost on the way. They are recomputed."));
  }
};

/// Which beam every child becomes, so that forks are minimal: the first child of a parent takes its parent's place and
/// keeps its blocks; every other child takes, in order, the lowest place that is left. [children.size()]
PAGEDCORE_API std::vector<std::uint32_t> place_beams(std::span<const BeamChild> children);

enum class FinishReason : std::uint8_t { none, stop, length, abort, error, deadline };
template <>
struct Words<FinishReason> {
  static constexpr Word<FinishReason> list[] = {{FinishReason::none, "none"},     {FinishReason::stop, "stop"},
                                                {FinishReason::length, "length"}, {FinishReason::abort, "abort"},
                                                {FinishReason::error, "error"},   {FinishReason::deadline, "deadline"}};
};

/// What became of one sample in a step. Order: as in the plan.
struct SampleUpdate {
  RequestId request{};
  std::uint32_t sample = 0;
  TokenId token = -1;
  FinishReason finish = FinishReason::none;

  template <class V>
  static void fields(V&& v) {
    using U = SampleUpdate;
    v(field("request", &U::request, ""));
    v(field("sample", &U::sample, ""));
    v(field("token", &U::token,
            "-1: no token (an abort, an error, a request with max_tokens = 0, or a beam search, which has one update a "
            "step, for sample 0)."));
    v(field("finish", &U::finish, ""));
  }
};

}  // namespace pagedcore
