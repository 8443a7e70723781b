// What an engine holds for each of its ranks, of which most have one.
#pragma once

#include <memory>
#include <vector>

#include "engine/swap_store.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore {

/// Members go in the reverse of their order: each refers to those before it.
struct EngineRank {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Model> model;
  std::unique_ptr<KvStorage> kv;
  std::unique_ptr<SwapStore> swap;  // when there is a swap space
};

/// The options of one rank's backend: its share of the threads.
EngineConfig of_rank(EngineConfig config, std::int32_t rank);

/// Fills all but the backends, all ranks at a time: rank 0 on this thread, the others on threads of their own. Throws
/// what the first of them throws, when all have ended.
void load_ranks(std::vector<EngineRank>& ranks, const ModelDescription& model, const WeightSource& weights,
                const EngineConfig& config, const MemoryPlan& plan);

}  // namespace pagedcore
