#include "sampling/sampler.hpp"

#include <algorithm>
#include <limits>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/sampling.hpp"
#include "sampling/logits_processors.hpp"
#include "sampling/logprobs.hpp"
#include "sampling/row_kernels.hpp"
#include "sampling/truncation.hpp"

namespace pagedcore {
namespace sampling {
namespace {

/// The first index at which the running sum of the weights, begun at `sum`, exceeds `target`; should rounding leave
/// none, the last of positive weight.
std::size_t invert(std::span<const float> weights, double sum, double target) {
  std::size_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0.0f)) continue;
    last = i;
    sum += double{weights[i]};
    if (sum > target) break;
  }
  return last;
}

/// Inverts the cumulative distribution of the whole row: first over blocks of kSumBlock tokens, then within one.
TokenId draw_from_row(std::span<const float> row, float max, float scale, double u, Scratch& scratch) {
  scratch.block_sums.resize(sum_blocks(row.size()));
  exp_block_sums(row, max, scale, scratch.block_sums);
  double total = 0.0;
  for (const double s : scratch.block_sums) total += s;

  const double target = u * total;
  double before = 0.0, sum = 0.0;  // before: the sum ahead of `block`
  std::size_t block = 0;
  for (std::size_t b = 0; b < scratch.block_sums.size(); ++b) {
    if (!(scratch.block_sums[b] > 0.0)) continue;
    block = b;
    before = sum;
    sum += scratch.block_sums[b];
    if (sum > target) break;
  }
  const std::size_t first = block * kSumBlock;
  const auto part = row.subspan(first, std::min(kSumBlock, row.size() - first));
  float weights[kSumBlock];
  exp_row(part, max, scale, weights);
  return static_cast<TokenId>(first + invert({weights, part.size()}, before, target));
}

TokenId draw(std::span<const float> row, float max, const SampleContext& context, Scratch& scratch) {
  const SamplingParams& p = *context.params;
  const float scale = logit_scale(p);
  const double u = uniform(p.seed, context.sample, context.prompt.size() + context.output.size());
  if (!truncates(p, row.size())) return draw_from_row(row, max, scale, u, scratch);
  const Candidates& c = scratch.candidates;
  truncate(row, max, scale, p, scratch);
  double total = 0.0;
  for (const float w : c.weights) total += double{w};
  return c.tokens[invert(c.weights, 0.0, u * total)];
}

}  // namespace

SampleOutcome sample(std::span<const float> logits, const SampleContext& context, Scratch& scratch, TokenMask allowed) {
  if (context.params == nullptr)
    throw InvalidArgument("a draw needs sampling parameters: SampleContext::params is null");
  const SamplingParams& p = *context.params;
  const float model_max = checked_max(logits);
  const std::span<const float> row = process_logits(logits, context, scratch, allowed);
  const float max = row.data() == logits.data() ? model_max : row_max(row);
  if (max == -std::numeric_limits<float>::infinity()) {
    throw InvalidArgument(str("no token may be chosen after ", context.output.size(),
                              " output tokens: banned_tokens, allowed_token_ids, logit_bias, stop tokens before "
                              "min_tokens, and what a constraint allows leave none of ",
                              logits.size(), "; allow at least one"));
  }

  SampleOutcome outcome;
  outcome.token = p.temperature == 0.0f ? static_cast<TokenId>(find_first(row, max)) : draw(row, max, context, scratch);
  outcome.stop = p.stops(outcome.token);
  if (p.reports_logprobs()) {
    for (const TokenId token : p.logprob_token_ids) index_of(token, logits.size());
    outcome.logprobs = row_logprobs(logits, model_max, outcome.token,
                                    {num_top(p.logprobs, logits.size()), p.logprob_token_ids}, scratch);
  }
  return outcome;
}

}  // namespace sampling

SampleOutcome sample(std::span<const float> logits, const SampleContext& context) {
  sampling::Scratch scratch;
  return sampling::sample(logits, context, scratch);
}

}  // namespace pagedcore
