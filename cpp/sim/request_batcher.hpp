// Request-level batching, as FasterTransformer's users did it (PagedAttention, section 6.1).
#pragma once

#include <cstdint>
#include <span>

#include "pagedcore/simulation.hpp"

namespace pagedcore::sim {

/// What a batch of the earliest of `requests` is padded to.
struct Batch {
  std::uint32_t size = 0;  // of the requests, from the first on
  std::uint32_t prompt = 0;
  std::uint32_t output = 0;
};

std::uint32_t prompt_tokens(const SimulatedRequest& request) noexcept;

/// As many as fit: at most `most`, longest prompt and longest output of at most `tokens` together, and all of as many
/// samples or beams. One at least.
Batch next_batch(std::span<const SimulatedRequest> requests, std::uint32_t most, std::uint32_t tokens) noexcept;

}  // namespace pagedcore::sim
