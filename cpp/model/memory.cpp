#include "base/text.hpp"
#include "model/activations.hpp"
#include "model/weights.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

std::size_t DecoderWeights::bytes() const noexcept {
  std::size_t total = vectors->bytes();
  for (const auto* matrix : {&embed, &embed_in, &embed_out, &positions, &lm_head})
    total += *matrix ? (*matrix)->bytes() : 0;
  const auto add_all = [&total](const std::vector<std::unique_ptr<Weight>>& list) {
    for (const auto& weight : list) total += weight->bytes();
  };
  const auto add = [&](const MlpWeights& mlp) {
    total += mlp.up ? mlp.up->bytes() : 0;
    add_all(mlp.down);
  };
  for (const LayerWeights& layer : layers) {
    total += layer.qkv->bytes();
    add_all(layer.o);
    if (layer.mlp) add(*layer.mlp);
    if (!layer.mixture) continue;
    const MixtureWeights& m = *layer.mixture;
    total += m.router->bytes();
    if (m.shared) add(*m.shared);
    for (const MixtureWeights::Experts& part : m.experts) {
      add_all(part.up);
      add_all(part.down);
    }
  }
  for (const DenseWeights& layer : dense) total += layer.weight->bytes();
  return total;
}

ModelMemory plan_model_memory(const ModelDescription& description, const TensorSizes& sizes, std::int32_t block_size,
                              std::uint32_t max_batched_tokens, std::uint32_t max_logit_rows,
                              const WeightSource* weights, const ModelRank& rank) {
  description.validate();
  validate_ranks(description, rank.size);
  const Shard shard = shard_of(description, rank);
  if (description.mixture.num_experts > 0 && !sizes.serves_mixtures())
    throw Unsupported(str("a mixture of ", description.mixture.num_experts,
                          " experts is not served on this device yet; use device cpu"));
  if (description.attention.sinks && !sizes.serves_sinks())
    throw Unsupported("attention sinks are not served on this device yet; use device cpu");
  ModelMemory memory;
  const PackedSize size = planned_weight_size(description, shard, sizes, weights);
  memory.weights = size.bytes;
  memory.native_weights = size.native;
  memory.integer_weights = size.integer;
  memory.dense_weights = size.bytes - size.native - all_vector_bytes(description, shard);
  memory.activations =
      ActivationLayout(description, shard, sizes.compute_dtype(), {max_batched_tokens, max_logit_rows}).bytes;
  memory.kv_block = sizes.kv_block_bytes(kv_shape_of(description, shard, sizes, block_size));
  return memory;
}

}  // namespace pagedcore
