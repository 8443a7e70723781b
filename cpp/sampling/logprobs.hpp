// Log-probabilities of the model's own distribution, and the check every row of logits has to pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "pagedcore/sampling.hpp"
#include "sampling/scratch.hpp"

namespace pagedcore::sampling {

/// The largest logit. Throws Corrupt naming the first NaN or +inf, or when every logit is -inf.
float checked_max(std::span<const float> logits);

/// How many most likely tokens SamplingParams::logprobs asks for: -1 is the whole vocabulary; none, no tokens.
inline std::int32_t num_top(std::optional<std::int32_t> logprobs, std::size_t vocab_size) {
  return logprobs == -1 ? static_cast<std::int32_t>(vocab_size) : logprobs.value_or(0);
}

/// What is reported of a row besides its token.
struct Reported {
  std::int32_t top = 0;                     // most likely tokens
  std::span<const TokenId> token_ids = {};  // and these
};

/// As logprobs_of, for a row whose checked_max is already known.
PositionLogprobs row_logprobs(std::span<const float> logits, float max, TokenId token, const Reported& reported,
                              Scratch& scratch);
/// logprobs_of() with more tokens to report. Throws as it does.
PositionLogprobs checked_logprobs(std::span<const float> logits, TokenId token, const Reported& reported,
                                  Scratch& scratch);

}  // namespace pagedcore::sampling
