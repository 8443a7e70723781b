// sample() for those who draw many tokens.
#pragma once

#include <span>

#include "pagedcore/sampling.hpp"
#include "sampling/logits_processors.hpp"
#include "sampling/scratch.hpp"

namespace pagedcore::sampling {

/// As pagedcore::sample(), in memory that is used again, of the tokens that a constraint allows.
SampleOutcome sample(std::span<const float> logits, const SampleContext& context, Scratch& scratch,
                     TokenMask allowed = {});

}  // namespace pagedcore::sampling
