// The weights of a decoder on its device. What there is, under which name and of which shape, is written down once, as
// tables; planning, checking and loading all read them.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "model/shard.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore {

/// An MLP: W_down act(W_up x), or with a gate W_down (act(W_gate x) * W_up x).
struct MlpWeights {
  std::unique_ptr<Weight> up;  // [intermediate, hidden]; with a gate the pair (gate, up)
  std::optional<Tensor> up_bias;
  std::vector<std::unique_ptr<Weight>> down;  // [hidden, intermediate], by subtrees of its leaves
  std::optional<Tensor> down_bias;
};

/// A mixture of experts.
struct MixtureWeights {
  std::unique_ptr<Weight> router;     // f32 [experts, hidden], below it the shared expert's gate
  std::optional<Tensor> router_bias;  // [1, experts]
  struct Experts {
    std::vector<std::unique_ptr<Weight>> up, down;  // [experts]: as MlpWeights has them
  };
  std::vector<Experts> experts;              // by subtrees of the leaves of their down products
  std::optional<Tensor> up_bias, down_bias;  // [experts, 2 * expert_size], of each gate and up, and [experts, hidden]
  std::optional<MlpWeights> shared;          // the shared expert
};

/// One transformer layer, of a rank its part of it: without ranks every list of subtrees has the root alone. Vectors
/// are f32 [1, n] views into DecoderWeights::vectors.
struct LayerWeights {
  std::optional<Tensor> attn_norm, attn_norm_bias, attn_post_norm, attn_post_norm_bias;
  std::unique_ptr<Weight> qkv;  // q, k and v stacked: [q_size + 2 kv_size, hidden]
  std::optional<Tensor> qkv_bias;
  std::optional<Tensor> q_norm, q_norm_bias;  // [1, head_dim or q_size]
  std::optional<Tensor> k_norm, k_norm_bias;  // [1, head_dim or kv_size]
  std::optional<Tensor> sinks;                // [1, heads]
  std::vector<std::unique_ptr<Weight>> o;     // [hidden, q_size], by subtrees of its leaves
  std::optional<Tensor> o_bias;
  std::optional<Tensor> mlp_norm, mlp_norm_bias, mlp_post_norm, mlp_post_norm_bias;
  std::optional<MlpWeights> mlp;
  std::optional<MixtureWeights> mixture;  // in its place
};

/// A product that embeddings go through.
struct DenseWeights {
  std::unique_ptr<Weight> weight;  // [its dense_sizes, that of the one before or hidden]
  std::optional<Tensor> bias;
};

struct DecoderWeights {
  std::unique_ptr<Buffer> vectors;
  std::unique_ptr<Weight> embed;                // [vocab, embedding size]
  std::unique_ptr<Weight> embed_in, embed_out;  // [hidden, embedding size] and back; null where these are equal
  std::unique_ptr<Weight> positions;            // [learned positions, hidden], or null
  std::unique_ptr<Weight> lm_head;              // [vocab, embedding size]; null when tied, or without a head
  std::optional<Tensor> lm_head_bias;
  std::optional<Tensor> embed_norm, embed_norm_bias;
  std::optional<Tensor> final_norm, final_norm_bias;
  std::optional<Tensor> rope_inv_freq;  // [1, tables * frequencies]
  std::optional<Tensor> alibi;          // [1, heads]
  std::vector<LayerWeights> layers;
  std::vector<DenseWeights> dense;  // [dense_sizes]

  const Weight& head() const noexcept { return lm_head ? *lm_head : *embed; }
  std::size_t bytes() const noexcept;
  /// rope_inv_freq, cut into `count` tables; none where nothing is rotated.
  std::vector<Tensor> rope_tables(std::int32_t count) const {
    std::vector<Tensor> tables;
    const std::int64_t n = rope_inv_freq ? rope_inv_freq->cols / count : 0;
    for (std::int32_t i = 0; n > 0 && i < count; ++i) tables.push_back(rope_inv_freq->slice_cols(i * n, n));
    return tables;
  }
};

/// Columns of q, of k or v, and of the stacked qkv.
inline std::int64_t q_size(const ModelDescription& d) noexcept {
  return std::int64_t{d.attention.num_heads} * d.attention.head_dim;
}
inline std::int64_t kv_size(const ModelDescription& d) noexcept {
  return std::int64_t{d.attention.num_kv_heads} * d.attention.head_dim;
}
inline std::int64_t embedding_size(const ModelDescription& d) noexcept {
  return d.embedding_size > 0 ? d.embedding_size : d.hidden_size;
}
inline std::int64_t qkv_size(const ModelDescription& d) noexcept { return q_size(d) + 2 * kv_size(d); }

/// The KV storage that the decoder writes, or a rank of it.
inline KvShape kv_shape_of(const ModelDescription& d, const Shard& shard, const TensorSizes& sizes,
                           std::int32_t block_size) {
  return {layer_groups(d).layers_per_group, static_cast<std::int32_t>(shard.kv_heads.size()), d.attention.head_dim,
          block_size, sizes.kv_dtype()};
}

/// Throws Corrupt for a tensor that is missing or whose shape or size contradicts the description, Unsupported for one
/// that cannot be served, or not by ranks. `description` is valid, and of the whole model.
DecoderWeights load_weights(const ModelDescription& description, const Shard& shard, const WeightSource& source,
                            Backend& backend);
/// What load_weights() will hold; `weights` as in plan_model_memory(). Room for every optional bias is counted and
/// held, for the description does not say which ones a checkpoint has; they are a few vectors a layer.
PackedSize planned_weight_size(const ModelDescription& description, const Shard& shard, const TensorSizes& sizes,
                               const WeightSource* weights);
/// Of that: norms, biases and tables of positions, which are in f32.
std::size_t all_vector_bytes(const ModelDescription& description, const Shard& shard);

}  // namespace pagedcore
