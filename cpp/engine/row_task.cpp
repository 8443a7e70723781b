#include "engine/row_task.hpp"

#include <algorithm>
#include <exception>
#include <new>
#include <utility>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "sampling/logits_processors.hpp"
#include "sampling/logprobs.hpp"
#include "sampling/sampler.hpp"

namespace pagedcore {

TokenId RowTask::scored_token() const {
  if (jumped >= 0) return request->samples.at(sample).output.at(static_cast<std::size_t>(jumped));
  return request->request.prompt.at(static_cast<std::size_t>(position) + 1);
}

std::int32_t RowTask::num_scored_top(std::size_t vocab_size) const {
  const SamplingParams& p = request->request.sampling;
  return sampling::num_top(jumped >= 0 ? p.logprobs : p.prompt_logprobs, vocab_size);
}

SampleContext RowTask::context() const {
  const EngineRequest& r = request->request;
  return {&r.sampling, r.prompt, request->samples.at(sample).output, sample};
}

void RowTask::find_allowed(std::size_t vocab_size) noexcept {
  if (matcher == nullptr || !allowed.empty()) return;
  try {
    allowed = matcher->allowed(vocab_size);
  } catch (const InvalidArgument& e) {
    note(e.what());
  } catch (const std::exception&) {
    note(kNoMemory);
  }
}

/// A text that is there whatever memory is left.
void RowTask::note(const char* why) noexcept {
  allowed = {};
  try {
    error = why;
  } catch (const std::bad_alloc&) {
    error = kNoMemory;
  }
}

void RowTask::run(std::span<const float> logits, sampling::Scratch& scratch) {
  try {
    if (scores()) {
      outcome.logprobs = sampling::checked_logprobs(
          logits, scored_token(), {num_scored_top(logits.size()), request->request.sampling.logprob_token_ids},
          scratch);
    } else if (request->beams) {
      candidates = sampling::beam_candidates(logits, request->beams->search.candidates_per_beam(), scratch, allowed);
    } else {
      outcome = sampling::sample(logits, context(), scratch, allowed);
    }
  } catch (const std::bad_alloc&) {
    error = kNoMemory;
  } catch (const std::exception& e) {
    try {
      error = str(scores() ? "scoring" : "sampling", " failed: ", e.what());
    } catch (const std::bad_alloc&) {
      error = kNoMemory;
    }
  }
}

SamplingTask RowTask::for_backend(std::int64_t row, std::size_t vocab_size, std::vector<std::uint32_t>& mask) const {
  SamplingTask task;
  task.row = row;
  const EngineRequest& r = request->request;
  const bool draws = !scores() && !request->beams;
  // Only a draw depends on an output, and only a draw has one: beams are more than the hypotheses that are returned.
  task.context = draws ? context() : SampleContext{&r.sampling, r.prompt, {}, 0};
  const SamplingParams& p = task.params();
  if (scores()) {
    task.kind = SamplingTask::Kind::score;
    task.token = scored_token();
    task.num_top = num_scored_top(vocab_size);
  } else if (request->beams) {
    task.kind = SamplingTask::Kind::candidates;
    task.num_top = static_cast<std::int32_t>(std::min(request->beams->search.candidates_per_beam(), vocab_size));
  } else {
    task.mask = mask = sampling::token_mask(task.context, vocab_size, allowed);
    task.num_top = sampling::num_top(p.logprobs, vocab_size);
  }
  return task;
}

void RowTask::take(SamplingResult&& result) {
  if (request->beams) {
    for (const TokenLogprob& top : result.top) candidates.push_back({top.token, top.logprob});
    return;
  }
  outcome.token = result.token;
  outcome.stop = request->request.sampling.stops(result.token);
  outcome.logprobs = {result.chosen, std::move(result.top)};
}

}  // namespace pagedcore
