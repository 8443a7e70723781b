// Small random models of several families for the tests, with their weights held in memory.
#pragma once

#include <cmath>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "pagedcore/model.hpp"

namespace tiny {

using namespace pagedcore;

/// A description and f32 weights for it. Every value is a bfloat16 number, so that packing to either type is exact.
class TinyModel {
 public:
  TinyModel(ModelDescription description, bool qkv_bias, bool all_biases, std::uint32_t seed)
      : d(std::move(description)), random_(seed) {
    const float offset = 1.0f - d.norm.weight_offset;
    const int hidden = d.hidden_size, inter = d.mlp.intermediate_size, q = d.attention.num_heads * d.attention.head_dim,
              kv = d.attention.num_kv_heads * d.attention.head_dim;
    matrix("embed.weight", d.vocab_size, hidden, 1.0f);
    if (!d.tied_embeddings) matrix("lm_head.weight", d.vocab_size, hidden, 1.0f / std::sqrt(float(hidden)));
    vector("final_norm.weight", hidden, offset);
    if (all_biases) vector("final_norm.bias", hidden, 0.0f);
    if (all_biases) vector("lm_head.bias", d.vocab_size, 0.0f);
    for (int i = 0; i < d.num_layers; ++i) {
      const std::string l = "layers." + std::to_string(i) + ".";
      vector(l + "attn_norm.weight", hidden, offset);
      vector(l + "mlp_norm.weight", hidden, offset);
      const auto project = [&](const std::string& name, int n, int k, bool bias) {
        matrix(l + name + ".weight", n, k, 1.5f / std::sqrt(float(k)));
        if (bias) vector(l + name + ".bias", n, 0.0f);
      };
      project("attn.q", q, hidden, qkv_bias || all_biases);
      project("attn.k", kv, hidden, qkv_bias || all_biases);
      project("attn.v", kv, hidden, qkv_bias || all_biases);
      project("attn.o", hidden, q, all_biases);
      if (d.mlp.gated) project("mlp.gate", inter, hidden, all_biases);
      project("mlp.up", inter, hidden, all_biases);
      project("mlp.down", hidden, inter, all_biases);
      if (all_biases) vector(l + "attn_norm.bias", hidden, 0.0f);
      if (all_biases) vector(l + "mlp_norm.bias", hidden, 0.0f);
      if (d.attention.qk_norm) vector(l + "attn.q_norm.weight", d.attention.head_dim, offset);
      if (d.attention.qk_norm) vector(l + "attn.k_norm.weight", d.attention.head_dim, offset);
    }
  }

  /// The values of a tensor; empty when the model has none of that name.
  const std::vector<float>& values(const std::string& name) const {
    static const std::vector<float> none;
    const auto found = index_.find(name);
    return found == index_.end() ? none : storage_[found->second];
  }

  const ModelDescription d;
  WeightMap weights;

 private:
  void add(const std::string& name, std::vector<std::int64_t> shape, float scale, float shift) {
    std::size_t count = 1;
    for (const auto extent : shape) count *= static_cast<std::size_t>(extent);
    std::vector<float> values(count);
    std::normal_distribution<float> normal;
    for (float& v : values) v = to_bf16(shift + scale * normal(random_));
    index_[name] = storage_.size();
    const std::vector<float>& kept = storage_.emplace_back(std::move(values));
    HostTensor tensor{DType::f32, {}, static_cast<int>(shape.size()), std::as_bytes(std::span(kept))};
    for (std::size_t i = 0; i < shape.size(); ++i) tensor.shape[i] = shape[i];
    weights.add(name, tensor);
  }
  void matrix(const std::string& name, int n, int k, float scale) { add(name, {n, k}, scale, 0.0f); }
  void vector(const std::string& name, int n, float shift) { add(name, {n}, 0.25f, shift); }

  static float to_bf16(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    return std::bit_cast<float>((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
  }

  std::mt19937 random_;
  std::deque<std::vector<float>> storage_;
  std::map<std::string, std::size_t> index_;
};

inline std::vector<float> frequencies(int count) {
  std::vector<float> f;
  for (int i = 0; i < count; ++i) f.push_back(std::pow(10000.0f, -float(i) / float(count)));
  return f;
}

inline ModelDescription base_description() {
  ModelDescription d;
  d.architecture = "tiny";
  d.vocab_size = 83;
  d.hidden_size = 64;
  d.mlp.intermediate_size = 96;
  d.num_layers = 3;
  d.attention.num_heads = 4;
  d.attention.num_kv_heads = 2;
  d.attention.head_dim = 16;
  d.max_context = 128;
  d.position.rope_inv_freq = frequencies(8);
  return d;
}

inline TinyModel llama() { return {base_description(), false, false, 1}; }

inline TinyModel biased() { return {base_description(), true, true, 6}; }  // a LLaMA with biases everywhere

inline TinyModel qwen2() {  // biases on q, k, v; tied
  ModelDescription d = base_description();
  d.tied_embeddings = true;
  d.hidden_size = 48;
  d.embedding_scale = 0.5f;
  return {d, true, false, 2};
}

inline TinyModel qwen3() {  // QK norm, heads that are wider than hidden / heads, one KV head
  ModelDescription d = base_description();
  d.attention.qk_norm = true;
  d.attention.head_dim = 32;
  d.hidden_size = 40;
  d.attention.num_kv_heads = 1;
  d.position.rope_inv_freq = frequencies(16);
  return {d, false, false, 3};
}

inline TinyModel gpt() {  // layer norm, biases everywhere, a plain MLP, no rotation, as many KV heads as heads
  ModelDescription d = base_description();
  d.norm.kind = NormKind::layer;
  d.mlp.activation = Activation::gelu_tanh;
  d.mlp.gated = false;
  d.attention.num_kv_heads = 4;
  d.position.rope_inv_freq.clear();
  return {d, true, true, 4};
}

inline TinyModel odd() {  // heads of an odd size, rotated but for the last dimension
  ModelDescription d = base_description();
  d.attention.qk_norm = true;
  d.hidden_size = 33;
  d.attention.num_heads = 6;
  d.attention.num_kv_heads = 3;
  d.attention.head_dim = 5;
  d.position.rope_inv_freq = frequencies(2);
  return {d, true, true, 7};
}

inline TinyModel open_llama() {  // the head size of Open LLaMA 3B
  ModelDescription d = base_description();
  d.attention.head_dim = 100;
  d.position.rope_inv_freq = frequencies(50);
  return {d, false, false, 8};
}

inline TinyModel gemma() {  // windows, softcaps, scales, weight offset, rotation of half of each head
  ModelDescription d = base_description();
  d.norm.weight_offset = 1.0f;
  d.mlp.activation = Activation::gelu_tanh;
  d.tied_embeddings = true;
  d.embedding_scale = 2.0f;
  d.attention.scale = 0.2f;
  d.attention.softcap = 4.0f;
  d.logit_scale = 0.5f;
  d.logit_softcap = 3.0f;
  d.position.rope_inv_freq = frequencies(4);
  d.position.rope_magnitude = 1.1f;
  d.attention.windows = {5, 0, 17};
  return {d, false, false, 5};
}

}  // namespace tiny
