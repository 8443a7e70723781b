// Runs the sampling kernels for requests as the host's sampler takes them.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "kernels/sampling.hpp"
#include "pagedcore/sampling.hpp"
#include "sampling/beam_search.hpp"

namespace pagedcore::cuda {

struct DeviceOutcome {
  RowStatus status = RowStatus::ok;
  TokenId token = -1;
  RowStatus logprob_status = RowStatus::ok;
  PositionLogprobs logprobs;  // where asked for
};

/// All requests in one launch of each kernel, one row each; every row has the same size.
std::vector<DeviceOutcome> sample_on_device(std::span<const std::vector<float>> rows,
                                            std::span<const SampleContext> requests);

std::vector<sampling::BeamCandidate> beam_candidates_on_device(const std::vector<float>& row, std::int32_t count);

}  // namespace pagedcore::cuda
