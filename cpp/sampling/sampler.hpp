// sample() for those who draw many tokens.
#pragma once

#include <span>

#include "pagedcore/sampling.hpp"
#include "sampling/scratch.hpp"

namespace pagedcore::sampling {

/// As pagedcore::sample(), in memory that is used again.
SampleOutcome sample(std::span<const float> logits, const SampleContext& context, Scratch& scratch);

}  // namespace pagedcore::sampling
