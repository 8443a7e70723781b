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
    const int embedding = d.embedding_size > 0 ? d.embedding_size : hidden;
    const auto norm = [&](const std::string& name, int n) {
      if (d.norm.weights) vector(name + ".weight", n, offset);
      if (all_biases) vector(name + ".bias", n, 0.0f);
    };
    matrix("embed.weight", d.vocab_size, embedding, 1.0f);
    if (d.embedding_size > 0) matrix("embed_in.weight", hidden, embedding, 1.0f / std::sqrt(float(embedding)));
    if (d.embedding_size > 0) matrix("embed_out.weight", embedding, hidden, 1.0f / std::sqrt(float(hidden)));
    if (d.position.learned > 0) matrix("positions.weight", d.position.learned, hidden, 0.5f);
    if (!d.tied_embeddings) matrix("lm_head.weight", d.vocab_size, embedding, 1.0f / std::sqrt(float(embedding)));
    if (d.norm.embedding) norm("embed_norm", hidden);
    if (d.norm.final) norm("final_norm", hidden);
    if (all_biases) vector("lm_head.bias", d.vocab_size, 0.0f);
    for (int i = 0; i < d.num_layers; ++i) {
      const std::string l = "layers." + std::to_string(i) + ".";
      const bool before = d.norm.place == NormPlace::before || d.norm.place == NormPlace::both;
      for (const char* branch : {"attn", "mlp"}) {
        if (before) norm(l + branch + "_norm", hidden);
        if (d.norm.place != NormPlace::before) norm(l + branch + "_post_norm", hidden);
      }
      const auto project = [&](const std::string& name, int n, int k, bool bias) {
        matrix(l + name + ".weight", n, k, 1.5f / std::sqrt(float(k)));
        if (bias) vector(l + name + ".bias", n, 0.0f);
      };
      project("attn.q", q, hidden, qkv_bias || all_biases);
      project("attn.k", kv, hidden, qkv_bias || all_biases);
      project("attn.v", kv, hidden, qkv_bias || all_biases);
      project("attn.o", hidden, q, all_biases);
      if (d.attention.sinks) vector(l + "attn.sinks.weight", d.attention.num_heads, 0.5f);
      const MixtureDescription& m = d.mixture;
      const auto expert = [&](const std::string& name, int size) {
        for (const char* part : {"gate", "up"}) project(name + part, size, hidden, m.biases);
        project(name + "down", hidden, size, m.biases);
      };
      if (m.in_layer(static_cast<std::size_t>(i))) {
        project("mlp.router", m.num_experts, hidden, m.biases);
        if (m.shared_gate) project("mlp.shared_gate", 1, hidden, false);
        if (m.shared_size > 0) expert("mlp.shared.", m.shared_size);
        for (int e = 0; e < m.num_experts; ++e) expert("mlp.experts." + std::to_string(e) + ".", m.expert_size);
      } else {
        if (d.mlp.gated) project("mlp.gate", inter, hidden, all_biases);
        project("mlp.up", inter, hidden, all_biases);
        project("mlp.down", hidden, inter, all_biases);
      }
      const bool shared = d.attention.qk_norm_span == QkNormSpan::head;
      if (d.attention.qk_norm) norm(l + "attn.q_norm", shared ? d.attention.head_dim : q);
      if (d.attention.qk_norm) norm(l + "attn.k_norm", shared ? d.attention.head_dim : kv);
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

inline TinyModel mixture() {  // experts in two layers of three, and one for every row
  ModelDescription d = base_description();
  d.mixture.num_experts = 5;
  d.mixture.experts_per_token = 2;
  d.mixture.expert_size = 40;
  d.mixture.shared_size = 33;
  d.mixture.shared_gate = true;
  d.mixture.layers = {1, 0, 1};
  return {d, false, false, 10};
}

inline TinyModel biased_mixture() {  // experts with biases, as is the router
  ModelDescription d = base_description();
  d.mixture.num_experts = 5;
  d.mixture.experts_per_token = 2;
  d.mixture.expert_size = 40;
  d.mixture.biases = true;
  d.mixture.router = RouterKind::chosen_softmax;
  d.mlp.activation = Activation::clamped_swiglu;
  d.attention.sinks = true;
  return {d, true, false, 14};
}

inline TinyModel sinks() {  // sinks, a clamped SwiGLU that cuts off, windows, biases
  ModelDescription d = base_description();
  d.attention.sinks = true;
  d.attention.windows = {6, 0, 6};
  d.mlp.activation = Activation::clamped_swiglu;
  d.mlp.swiglu_alpha = 1.3f;
  d.mlp.swiglu_limit = 0.4f;
  return {d, true, true, 13};
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

inline TinyModel gemma3() {  // norms before and after; two ropes; QK norm
  ModelDescription d = base_description();
  d.norm.place = NormPlace::both;
  d.norm.weight_offset = 1.0f;
  d.attention.qk_norm = true;
  d.attention.windows = {6, 0, 6};
  d.position.rope_tables = 2;
  d.position.rope_layers = {1, 0, 1};
  d.position.rope_magnitude = 1.2f;
  for (const float f : frequencies(8)) d.position.rope_inv_freq.push_back(0.5f * f);
  return {d, false, false, 7};
}

inline TinyModel olmo2() {  // norms after only, over whole rows of q and k; a scale of what is added
  ModelDescription d = base_description();
  d.norm.place = NormPlace::after;
  d.attention.qk_norm = true;
  d.attention.qk_norm_span = QkNormSpan::row;
  d.residual_scale = 0.4f;
  return {d, false, false, 8};
}

inline TinyModel opt() {  // norms around the sum, learned positions behind two rows, narrow embeddings, no last norm
  ModelDescription d = base_description();
  d.norm.kind = NormKind::layer;
  d.norm.place = NormPlace::outside;
  d.norm.final = false;
  d.mlp.activation = Activation::relu;
  d.mlp.gated = false;
  d.tied_embeddings = true;
  d.embedding_size = 24;
  d.position.rope_inv_freq.clear();
  d.position.learned = d.max_context + 2;
  d.position.learned_offset = 2;
  return {d, true, true, 9};
}

inline TinyModel bloom() {  // ALiBi, a norm of the embedding
  ModelDescription d = base_description();
  d.norm.kind = NormKind::layer;
  d.norm.embedding = true;
  d.mlp.gated = false;
  d.position.rope_inv_freq.clear();
  d.position.alibi_slopes = {0.5f, 0.25f, 0.125f, 0.0625f};
  return {d, true, true, 10};
}

inline TinyModel cohere() {  // attention beside the MLP, layers without rotation, norms of each head of q and k
  ModelDescription d = base_description();
  d.norm.kind = NormKind::layer;
  d.parallel = true;
  d.attention.qk_norm = true;
  d.attention.qk_norm_kind = NormKind::layer;
  d.attention.qk_norm_span = QkNormSpan::heads;
  d.attention.head_dim = 32;  // attention's output is wider than what the MLP reads
  d.position.rope_layers = {0, -1, 0};
  return {d, false, true, 11};
}

inline TinyModel olmo() {  // norms without weights
  ModelDescription d = base_description();
  d.norm.kind = NormKind::layer;
  d.norm.weights = false;
  d.parallel = true;
  d.residual_scale = 0.5f;
  return {d, false, false, 12};
}

}  // namespace tiny
