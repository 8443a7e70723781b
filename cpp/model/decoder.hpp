// The forward pass of one rank of a model, or of all of it: decoder.cpp.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "model/activations.hpp"
#include "model/exchange.hpp"
#include "model/weights.hpp"

namespace pagedcore {

inline const Tensor* optional(const std::optional<Tensor>& tensor) noexcept { return tensor ? &*tensor : nullptr; }

inline Epilogue epilogue(Epilogue::Kind kind, const std::optional<Tensor>& bias) {
  return {kind, Activation::silu, optional(bias), nullptr};
}

/// The weights of a norm of q or k.
struct QkNorm {
  const std::optional<Tensor>& weight;
  const std::optional<Tensor>& bias;
};

struct Model::Impl {
  Impl(const ModelDescription& description, const WeightSource& source, Backend& device, const MostRows& most,
       const ModelRank& rank)
      : d(description),
        shard(shard_of(d, rank)),
        own(part_of(d, shard)),
        backend(device),
        weights(load_weights(d, shard, source, device)),
        activations(d, shard, device, most),
        groups(layer_groups(d)),
        exchange(d, shard, device, activations.sent(), activations.received()) {}

  void check(const ForwardRequest& request, const KvStorage& kv) const;
  void norm(const Tensor& out, const Tensor& in, const std::optional<Tensor>& weight,
            const std::optional<Tensor>& bias);
  void qk_norm(const Tensor& qkv, const LayerWeights& layer);
  void row_norm(const Tensor& heads, const Tensor& shown, const std::vector<Interval>& ranges, const QkNorm& of);
  void project(const Tensor& out, const Tensor& in, const std::vector<std::unique_ptr<Weight>>& weight,
               const Cuts& cuts, const Epilogue& epilogue);
  template <class Branch>
  void add_branch(const LayerScratch& s, const Branch& branch, const std::optional<Tensor>& norm_weight,
                  const std::optional<Tensor>& norm_bias);
  void normalize(const LayerWeights& layer, const LayerScratch& s);
  void mlp(const MlpWeights& layer, const LayerScratch& s, const Tensor& out, Epilogue::Kind kind);
  void mix(const MixtureWeights& layer, const LayerScratch& s, const Tensor& out, Epilogue::Kind kind);
  void mix_part(const MixtureWeights& layer, std::size_t index, const Tensor& out, const LayerScratch& s,
                bool accumulate);
  SwigluParams swiglu() const { return {d.mlp.swiglu_alpha, d.mlp.swiglu_limit}; }
  RopeParams rope_of(std::int32_t index) const;
  void embed(const Batch& batch, std::span<const TokenId> tokens, const LayerScratch& s);
  void attend(std::int32_t index, const Batch& batch, KvStorage& kv);
  void finish_layer(const LayerWeights& layer, const LayerScratch& s);
  LayerScratch finish(std::span<const std::int32_t> rows, const LayerScratch& all);
  Tensor logits_of(std::span<const std::int32_t> rows, const LayerScratch& all);
  Tensor hidden_of(const LayerScratch& s);

  const ModelDescription d;
  const Shard shard;
  const ModelDescription own;  // what the rank has: all, where there is one
  Backend& backend;
  DecoderWeights weights;
  Activations activations;
  const LayerGroups groups;
  Exchange exchange;
  const Cuts attention_parts = attention_cuts(d, shard.rank.size);
  const Cuts mlp_parts = inner_cuts(d.mlp.intermediate_size, shard.rank.size);
  const Cuts expert_parts = inner_cuts(d.mixture.expert_size, shard.rank.size);
  const Cuts shared_parts = inner_cuts(d.mixture.shared_size, shard.rank.size);
  const std::vector<Tensor> rope_tables = weights.rope_tables(d.position.rope_tables);
};

}  // namespace pagedcore
