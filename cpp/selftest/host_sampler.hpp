// What the host's sampler makes of a backend's sampling task.
#pragma once

#include <span>

#include "pagedcore/backend.hpp"

namespace pagedcore::selftest {

/// What Backend::sample_tokens has to give for a task over this row where it does the task: sampling.hpp's own results.
/// Throws as sample().
SamplingResult sampled_on_host(std::span<const float> row, const SamplingTask& task);

}  // namespace pagedcore::selftest
