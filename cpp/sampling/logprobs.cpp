#include "sampling/logprobs.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "sampling/logits_processors.hpp"
#include "sampling/row_kernels.hpp"
#include "sampling/top_k.hpp"

namespace pagedcore {
namespace sampling {

float checked_max(std::span<const float> logits) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (logits.empty()) throw InvalidArgument("a row of logits is empty: the vocabulary has one token at least");
  const float max = row_max(logits);
  if (max < kInfinity && max > -kInfinity) return max;
  if (max == -kInfinity) {
    throw Corrupt(str("all ", logits.size(), " logits are -inf: the model's output is unusable; check its weights"));
  }
  const auto bad = std::find_if(logits.begin(), logits.end(), [](float x) { return !(x < kInfinity); });
  throw Corrupt(str("logit of token ", bad - logits.begin(), " is ", *bad,
                    ": the model's output is unusable; check its weights, or compute in f32"));
}

PositionLogprobs row_logprobs(std::span<const float> logits, float max, TokenId token, const Reported& reported) {
  const double log_sum = double{max} + std::log(exp_sum(logits, max, 1.0f));
  const auto logprob = [&](TokenId t) {
    return static_cast<float>(double{logits[static_cast<std::size_t>(t)]} - log_sum);
  };

  const auto ranked = [&](TokenId t) -> TokenLogprob {
    const auto at = static_cast<std::size_t>(t);
    const std::size_t better = count_greater(logits, logits[at]) + count_equal(logits.first(at), logits[at]);
    return {t, logprob(t), static_cast<std::int32_t>(better) + 1};
  };

  PositionLogprobs result;
  result.chosen = ranked(token);

  if (reported.top > 0) {
    std::vector<TokenId> tokens;
    top_k(logits, static_cast<std::size_t>(reported.top), tokens);
    // Ascending token ids before, so a stable sort leaves ties in their order.
    std::stable_sort(tokens.begin(), tokens.end(), [&](TokenId a, TokenId b) {
      return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
    });
    result.top.reserve(tokens.size() + reported.token_ids.size());
    for (const TokenId t : tokens) {
      result.top.push_back({t, logprob(t), static_cast<std::int32_t>(result.top.size()) + 1});
    }
  }
  for (const TokenId t : reported.token_ids) result.top.push_back(ranked(t));
  return result;
}

PositionLogprobs checked_logprobs(std::span<const float> logits, TokenId token, const Reported& reported) {
  const float max = checked_max(logits);
  index_of(token, logits.size());
  for (const TokenId t : reported.token_ids) index_of(t, logits.size());
  return row_logprobs(logits, max, token, reported);
}

}  // namespace sampling

PositionLogprobs logprobs_of(std::span<const float> logits, TokenId token, std::int32_t top) {
  return sampling::checked_logprobs(logits, token, {.top = top});
}

}  // namespace pagedcore
