// Selection of the most likely tokens of a row without sorting it.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "pagedcore/types.hpp"
#include "sampling/scratch.hpp"

namespace pagedcore::sampling {

/// Replaces `out` by the k tokens of the largest logits in ascending token order; of equal logits the smaller token id
/// ranks first. Tokens whose logit is -inf are never among them, so there may be fewer.
void top_k(std::span<const float> logits, std::size_t k, std::vector<TokenId>& out, Scratch& scratch);

}  // namespace pagedcore::sampling
