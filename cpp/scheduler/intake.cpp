#include "scheduler/intake.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::sched {

void Intake::clear() noexcept {
  forks_.clear();
  beam_steps_.clear();
}

void Intake::read(const StepResult& result) {
  const Flight& flight = state_.flight;
  if (raw(flight.step) == 0 || result.step != flight.step) {
    throw InvalidArgument(str("the result of step ", raw(result.step), " is committed, but ",
                              raw(flight.step) == 0 ? str("no step is outstanding; plan() one first")
                                                    : str("step ", raw(flight.step), " is outstanding")));
  }
  for (const RequestId id : result.swap_failed) {
    if (std::ranges::find(flight.moving, id) != flight.moving.end()) continue;
    throw InvalidArgument(str("step ", raw(flight.step), ": the swap of request ", raw(id), " is said to have failed, ",
                              "but the plan does not move it"));
  }
  read_tokens(result);
  check_beams(result);
  for (std::size_t i = 0; i < flight.work.size(); ++i) {
    const Work& work = flight.work[i];
    if (work.request != nullptr && !work.is_plain && !failed_[i]) fork_samples(work);
  }
  for (const BeamResult& beam : result.beams) advance(beam);
}

/// Sorts the result's tokens and failures to the work they belong to.
void Intake::read_tokens(const StepResult& result) {
  const std::vector<Work>& in_flight = state_.flight.work;
  const std::size_t count = in_flight.empty() ? 0 : in_flight.back().first_draw + in_flight.back().num_samples;
  draws_.assign(count, {});
  drawn_.assign(count, 0);
  failed_.assign(in_flight.size(), 0);
  for (const RequestId id : result.failed) {
    const Request* request = state_.find(id);
    if (request == nullptr || request->last_step != state_.flight.step) continue;
    for (std::size_t i = request->first_work; i < in_flight.size() && in_flight[i].request == request; ++i) {
      failed_[i] = 1;
    }
  }
  const auto bad = [&](const SampledToken& token, const char* why) {
    return InvalidArgument(str("step ", raw(state_.flight.step), ", sequence ", raw(token.sequence), ", sample ",
                               token.sample, ", token ", token.token, ": ", why));
  };
  std::size_t at = 0;  // results mostly come in the order of the plan
  for (const SampledToken& token : result.tokens) {
    if (in_flight.empty()) throw bad(token, "the sequence is not in the plan");
    for (std::size_t tried = 0; in_flight[at].sequence != token.sequence; ++tried) {
      if (tried == in_flight.size()) throw bad(token, "the sequence is not in the plan");
      at = at + 1 < in_flight.size() ? at + 1 : 0;
    }
    const Work& work = in_flight[at];
    if (work.request == nullptr || failed_[at]) continue;
    if (work.is_beam) throw bad(token, "a beam is continued by StepResult::beams");
    const std::uint32_t offset = token.sample - work.sample;
    if (token.sample < work.sample || offset >= work.num_samples) throw bad(token, "the plan does not sample this one");
    if (token.token < 0) throw bad(token, "a token is never negative");
    const std::size_t slot = work.first_draw + offset;
    if (drawn_[slot]) throw bad(token, "the sample comes twice");
    drawn_[slot] = 1;
    draws_[slot] = {token.token, token.stop};
  }
  for (std::size_t i = 0; i < in_flight.size(); ++i) {
    const Work& work = in_flight[i];
    if (work.request == nullptr || failed_[i] || work.is_beam) continue;
    for (std::uint32_t k = 0; k < work.num_samples; ++k) {
      if (!drawn_[work.first_draw + k]) throw bad({work.sequence, work.sample + k, -1}, "the token is missing");
    }
  }
}

SequenceId Intake::fork(Fork fork) {
  fork.child = SequenceId{state_.next.sequence + forks_.size()};
  forks_.push_back(std::move(fork));
  return forks_.back().child;
}

/// A sample starts from another one as soon as that has computed what they have in common, and shares its blocks: after
/// the first sampling that is the prompt, and after a preemption ForkFinder has found out what it is.
void Intake::fork_samples(const Work& work) {
  const Request& request = *work.request;
  if (request.unstarted == 0 || request.limits.max_tokens <= 1) return;
  for (std::uint32_t k = 0; k < request.samples.size(); ++k) {
    const Sample& sample = request.samples[k];
    if (sample.started || sample.is_finished() || sample.fork_parent != work.sample) continue;
    if (work.end() < sample.fork_length) continue;
    if (!request.progress.sampled && draws_[work.first_draw + k].stop) continue;  // ends with its first token
    Fork started{.request = &request, .sample = k, .parent = work.sequence, .length = sample.fork_length};
    PrefixMatch match = left_over(request, sample, work.sequence);
    if (match.num_tokens > sample.fork_length) {
      started.length = match.num_tokens;
      started.match = std::move(match);
    }
    fork(std::move(started));
  }
}

/// What the cache still has of a sample that was preempted, if it shares with the parent all that they have in common:
/// the group must not grow.
PrefixMatch Intake::left_over(const Request& request, const Sample& sample, SequenceId parent) const {
  if (sample.computed_before <= sample.fork_length || state_.rules.has_windows || sample.tokens.empty()) return {};
  const std::uint32_t most = std::min(request.target(sample) - 1, sample.most_shared);
  PrefixMatch match = state_.cache.match_prefix(state_.tokens(request, sample), request.salt, most, true);
  const auto shared =
      static_cast<std::ptrdiff_t>(sample.fork_length / state_.rules.block_size * state_.rules.num_layer_groups);
  const auto table = state_.cache.block_table(parent);
  if (std::ssize(match.blocks) < shared || !std::equal(table.begin(), table.begin() + shared, match.blocks.begin())) {
    return {};
  }
  return match;
}

}  // namespace pagedcore::sched
