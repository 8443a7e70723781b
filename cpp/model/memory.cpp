#include "model/activations.hpp"
#include "model/weights.hpp"

namespace pagedcore {

ModelMemory plan_model_memory(const ModelDescription& description, const Backend& backend, std::int32_t block_size,
                              std::uint32_t max_batched_tokens, std::uint32_t max_logit_rows) {
  description.validate();
  ModelMemory memory;
  memory.weights = planned_weight_bytes(description, backend);
  memory.activations = ActivationLayout(description, backend.compute_dtype(), max_batched_tokens, max_logit_rows).bytes;
  memory.kv_block = backend.kv_block_bytes(kv_shape_of(description, backend, block_size));
  return memory;
}

}  // namespace pagedcore
