// plan_memory() for a backend that exists already.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "pagedcore/engine.hpp"

namespace pagedcore {

/// With the values that depend on the device where they were left open. The steps of a model whose texts are computed
/// whole have room for the longest one.
EngineConfig for_its_device(EngineConfig config, const ModelDescription& model);

/// With `weights = auto` decided, which depends on the model: dense while all weights of the compute type take at most
/// 1 GiB, for products of a dozen rows and more are then faster; else native. The bits of results are the same.
EngineConfig for_its_model(EngineConfig config, const ModelDescription& model);

/// Rows of logits that are held at once: the language-model head runs over this many rows at a time. Of a configuration
/// for_its_device().
std::uint32_t max_logit_rows(const EngineConfig& config) noexcept;

/// Of the device that the configuration names.
std::unique_ptr<Backend> make_backend(const EngineConfig& config);
/// Bytes that the device, or this process on the host, may still take.
std::size_t available_memory(const Backend& backend);

/// `available`: bytes of memory that the process may still take.
MemoryPlan plan_memory(const ModelDescription& model, const EngineConfig& config, const TensorSizes& sizes,
                       std::size_t available, const WeightSource* weights = nullptr);

/// Throws InvalidArgument for a swap space that, beside what else the plan has on the host (all, if `on_host`), is more
/// than `limit` bytes of memory: it would be taken page by page until the kernel ends the process.
void check_swap_space(const MemoryPlan& plan, bool on_host, std::size_t limit);

}  // namespace pagedcore
