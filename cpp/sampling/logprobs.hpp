// Log-probabilities of the model's own distribution, and the check every row of logits has to pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "pagedcore/sampling.hpp"

namespace pagedcore::sampling {

/// The largest logit. Throws Corrupt naming the first NaN or +inf, or when every logit is -inf.
float checked_max(std::span<const float> logits);

/// As logprobs_of, for a row whose checked_max is already known.
PositionLogprobs row_logprobs(std::span<const float> logits, float max, TokenId token, std::int32_t top);

/// How many most likely tokens SamplingParams::logprobs asks for: -1 is the whole vocabulary; none, no tokens.
inline std::int32_t num_top(std::optional<std::int32_t> logprobs, std::size_t vocab_size) {
  return logprobs == -1 ? static_cast<std::int32_t>(vocab_size) : logprobs.value_or(0);
}

}  // namespace pagedcore::sampling
