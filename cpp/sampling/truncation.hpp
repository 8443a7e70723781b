// Which tokens a draw may choose: min-p, then top-k, then top-p.
#pragma once

#include <algorithm>
#include <limits>
#include <span>
#include <vector>

#include "pagedcore/sampling.hpp"
#include "sampling/scratch.hpp"

namespace pagedcore::sampling {

/// 1 / temperature, 0 for greedy; finite: any scale as large as that of a denormal temperature is as good as greedy.
inline float logit_scale(const SamplingParams& params) noexcept {
  return params.temperature == 0.0f ? 0.0f : std::min(1.0f / params.temperature, std::numeric_limits<float>::max());
}

bool truncates(const SamplingParams& params, std::size_t vocab_size) noexcept;

/// Replaces `scratch.candidates` by the tokens that min-p, top-k and top-p leave, of a row with the given maximum;
/// `scale` is 1 / temperature. One token at least. Of equal logits the smaller token id ranks first.
void truncate(std::span<const float> row, float max, float scale, const SamplingParams& params, Scratch& scratch);

}  // namespace pagedcore::sampling
