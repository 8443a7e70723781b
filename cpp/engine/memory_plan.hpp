// plan_memory() for a backend that exists already.
#pragma once

#include <cstdint>

#include "pagedcore/engine.hpp"

namespace pagedcore {

/// Rows of logits that are held at once: the language-model head runs over this many rows at a time.
std::uint32_t max_logit_rows(const EngineConfig& config) noexcept;

/// `available`: bytes of memory that the process may still take.
MemoryPlan plan_memory(const ModelDescription& model, const EngineConfig& config, const Backend& backend,
                       std::size_t available);

}  // namespace pagedcore
