#include "selftest/host_sampler.hpp"

#include <utility>

#include "pagedcore/sampling.hpp"
#include "sampling/beam_search.hpp"

namespace pagedcore::selftest {
namespace {

SamplingParams params_of(const SamplingTask& t, std::size_t vocab) {
  SamplingParams p;
  p.temperature = t.scale == 0.0f ? 0.0f : 1.0f / t.scale;
  p.top_k = t.top_k;
  p.top_p = t.top_p;
  p.min_p = t.min_p;
  p.repetition_penalty = t.repetition_penalty;
  p.presence_penalty = t.presence_penalty;
  p.frequency_penalty = t.frequency_penalty;
  p.logit_bias.assign(t.logit_bias.begin(), t.logit_bias.end());
  for (std::size_t token = 0; !t.mask.empty() && token < vocab; ++token)
    if ((t.mask[token / 32] >> token % 32 & 1u) == 0) p.banned_tokens.push_back(static_cast<TokenId>(token));
  p.seed = t.seed;
  if (t.wants_logprobs) p.logprobs = t.num_top;
  return p;
}

}  // namespace

SamplingResult sampled_on_host(std::span<const float> row, const SamplingTask& t) {
  SamplingResult result;
  result.done = true;
  PositionLogprobs logprobs;
  switch (t.kind) {
    case SamplingTask::Kind::candidates:
      for (const auto& [token, logprob] : sampling::beam_candidates(row, static_cast<std::size_t>(t.num_top)))
        logprobs.top.push_back({token, logprob, static_cast<std::int32_t>(logprobs.top.size()) + 1});
      break;
    case SamplingTask::Kind::score:
      logprobs = logprobs_of(row, t.token, t.num_top);
      break;
    case SamplingTask::Kind::draw: {
      const SamplingParams p = params_of(t, row.size());
      SampleOutcome outcome = sample(row, {&p, t.prompt, t.output, t.sample});
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
