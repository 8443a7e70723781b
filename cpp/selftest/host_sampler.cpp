#include "selftest/host_sampler.hpp"

#include <utility>

#include "pagedcore/sampling.hpp"
#include "sampling/beam_search.hpp"
#include "sampling/sampler.hpp"

namespace pagedcore::selftest {
SamplingResult sampled_on_host(std::span<const float> row, const SamplingTask& t) {
  SamplingResult result;
  result.done = true;
  PositionLogprobs logprobs;
  sampling::Scratch scratch;
  switch (t.kind) {
    case SamplingTask::Kind::candidates:
      for (const auto& [token, logprob] : sampling::beam_candidates(row, static_cast<std::size_t>(t.num_top), scratch))
        logprobs.top.push_back({token, logprob, static_cast<std::int32_t>(logprobs.top.size()) + 1});
      break;
    case SamplingTask::Kind::score:
      logprobs = logprobs_of(row, t.token, t.num_top);
      break;
    case SamplingTask::Kind::draw: {
      SampleContext context = t.context;
      context.params = &t.params();
      SampleOutcome outcome = sampling::sample(row, context, scratch, t.mask);
      result.token = outcome.token;
      logprobs = std::move(outcome.logprobs);
      break;
    }
  }
  result.chosen = logprobs.chosen;
  result.top = std::move(logprobs.top);
  return result;
}

}  // namespace pagedcore::selftest
