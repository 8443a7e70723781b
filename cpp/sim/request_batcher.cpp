#include "sim/request_batcher.hpp"

#include <algorithm>

namespace pagedcore::sim {

std::uint32_t prompt_tokens(const SimulatedRequest& request) noexcept {
  std::uint32_t tokens = 0;
  for (const PromptPart& part : request.prompt) tokens += part.tokens;
  return tokens;
}

Batch next_batch(std::span<const SimulatedRequest> requests, std::uint32_t most, std::uint32_t tokens) noexcept {
  Batch batch;
  for (const SimulatedRequest& request : requests) {
    const SimulatedRequest& first = requests.front();
    const std::uint32_t prompt = std::max(batch.prompt, prompt_tokens(request));
    const std::uint32_t output = std::max(batch.output, request.output);
    if (batch.size > 0 && (batch.size >= most || std::uint64_t{prompt} + output > tokens ||
                           request.num_samples != first.num_samples || request.beam_width != first.beam_width)) {
      break;
    }
    batch = {batch.size + 1, prompt, output};
  }
  return batch;
}

}  // namespace pagedcore::sim
