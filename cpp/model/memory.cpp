#include "base/text.hpp"
#include "model/activations.hpp"
#include "model/weights.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

ModelMemory plan_model_memory(const ModelDescription& description, const TensorSizes& sizes, std::int32_t block_size,
                              std::uint32_t max_batched_tokens, std::uint32_t max_logit_rows,
                              const WeightSource* weights) {
  description.validate();
  if (description.mixture.num_experts > 0 && !sizes.serves_mixtures())
    throw Unsupported(str("a mixture of ", description.mixture.num_experts,
                          " experts is not served on this device yet; use device cpu"));
  ModelMemory memory;
  const PackedSize size = planned_weight_size(description, sizes, weights);
  memory.weights = size.bytes;
  memory.native_weights = size.native;
  memory.integer_weights = size.integer;
  memory.dense_weights = size.bytes - size.native - all_vector_bytes(description);
  memory.activations = ActivationLayout(description, sizes.compute_dtype(), max_batched_tokens, max_logit_rows).bytes;
  memory.kv_block = sizes.kv_block_bytes(kv_shape_of(description, sizes, block_size));
  return memory;
}

}  // namespace pagedcore
