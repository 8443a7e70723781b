#include "sampling/logprobs.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
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

PositionLogprobs row_logprobs(std::span<const float> logits, float max, TokenId token, std::int32_t top) {
  const double log_sum = double{max} + std::log(exp_sum(logits, max, 1.0f));
  const auto logprob = [&](TokenId t) {
    return static_cast<float>(double{logits[static_cast<std::size_t>(t)]} - log_sum);
  };

  PositionLogprobs result;
  const auto at = static_cast<std::size_t>(token);
  const std::size_t better = count_greater(logits, logits[at]) + count_equal(logits.first(at), logits[at]);
  result.chosen = {token, logprob(token), static_cast<std::int32_t>(better) + 1};

  if (top > 0) {
    std::vector<TokenId> tokens;
    top_k(logits, static_cast<std::size_t>(top), tokens);
    // Ascending token ids before, so a stable sort leaves ties in their order.
    std::stable_sort(tokens.begin(), tokens.end(), [&](TokenId a, TokenId b) {
      return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
    });
    result.top.reserve(tokens.size());
    for (const TokenId t : tokens) {
      result.top.push_back({t, logprob(t), static_cast<std::int32_t>(result.top.size()) + 1});
    }
  }
  return result;
}

}  // namespace sampling

PositionLogprobs logprobs_of(std::span<const float> logits, TokenId token, std::int32_t top) {
  const float max = sampling::checked_max(logits);
  if (token < 0 || static_cast<std::size_t>(token) >= logits.size()) {
    throw InvalidArgument(str("token ", token, " is not in the vocabulary [0, ", logits.size(), ")"));
  }
  return sampling::row_logprobs(logits, max, token, top);
}

}  // namespace pagedcore
