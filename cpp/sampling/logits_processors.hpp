// What happens to a row of logits before temperature: penalties, bias, masks.
#pragma once

#include <span>
#include <vector>

#include "pagedcore/sampling.hpp"

namespace pagedcore::sampling {

/// The row to sample from: `logits` itself when the parameters change nothing, else an edited copy in `copy`. A token
/// that may not be chosen has -inf. Throws InvalidArgument for a token outside the row.
std::span<const float> process_logits(std::span<const float> logits, const SampleContext& context,
                                      std::vector<float>& copy);

}  // namespace pagedcore::sampling
