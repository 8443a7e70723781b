// Log-probabilities of the model's own distribution, and the check every row of logits has to pass.
#pragma once

#include <span>

#include "pagedcore/sampling.hpp"

namespace pagedcore::sampling {

/// The largest logit. Throws Corrupt naming the first NaN or +inf, or when every logit is -inf.
float checked_max(std::span<const float> logits);

/// As logprobs_of, for a row whose checked_max is already known.
PositionLogprobs row_logprobs(std::span<const float> logits, float max, TokenId token, std::int32_t top);

}  // namespace pagedcore::sampling
