// A small random decoder: description and weights, kept alive together.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "pagedcore/model.hpp"

namespace tiny {

using namespace pagedcore;

class TinyModel {
 public:
  explicit TinyModel(std::int32_t vocab = 151, std::int32_t layers = 2, std::int32_t head_dim = 16) : rng_(7) {
    ModelDescription& d = description;
    d.architecture = "tiny";
    d.vocab_size = vocab;
    d.hidden_size = 64;
    d.mlp.intermediate_size = 96;
    d.num_layers = layers;
    d.attention.num_heads = 4;
    d.attention.num_kv_heads = 2;
    d.attention.head_dim = head_dim;
    d.max_context = 256;
    for (int i = 0; i < head_dim / 2; ++i) {
      d.position.rope_inv_freq.push_back(
          1.0f / std::pow(10000.0f, 2.0f * static_cast<float>(i) / static_cast<float>(head_dim)));
    }
    const std::int32_t q = d.attention.num_heads * head_dim, kv = d.attention.num_kv_heads * head_dim;
    matrix("embed.weight", vocab, d.hidden_size, 1.0f);
    matrix("lm_head.weight", vocab, d.hidden_size, 0.3f);
    vector("final_norm.weight", d.hidden_size);
    for (std::int32_t i = 0; i < layers; ++i) {
      const std::string layer = "layers." + std::to_string(i) + ".";
      vector(layer + "attn_norm.weight", d.hidden_size);
      matrix(layer + "attn.q.weight", q, d.hidden_size, 0.2f);
      matrix(layer + "attn.k.weight", kv, d.hidden_size, 0.2f);
      matrix(layer + "attn.v.weight", kv, d.hidden_size, 0.2f);
      matrix(layer + "attn.o.weight", d.hidden_size, q, 0.2f);
      vector(layer + "mlp_norm.weight", d.hidden_size);
      matrix(layer + "mlp.gate.weight", d.mlp.intermediate_size, d.hidden_size, 0.2f);
      matrix(layer + "mlp.up.weight", d.mlp.intermediate_size, d.hidden_size, 0.2f);
      matrix(layer + "mlp.down.weight", d.hidden_size, d.mlp.intermediate_size, 0.2f);
    }
  }

  ModelDescription description;
  WeightMap weights;

  /// A weight's values, to be changed before the model is loaded.
  std::vector<float>& values(const std::string& name) { return *storage_.at(name); }

 private:
  void matrix(const std::string& name, std::int64_t rows, std::int64_t cols, float spread) {
    std::normal_distribution<float> normal(0.0f, spread);
    auto& data = storage_[name] = std::make_unique<std::vector<float>>(static_cast<std::size_t>(rows * cols));
    for (float& x : *data) x = normal(rng_);
    weights.add(name, {DType::f32, {rows, cols}, 2, std::as_bytes(std::span(*data))});
  }
  void vector(const std::string& name, std::int64_t size) {
    std::uniform_real_distribution<float> uniform(0.5f, 1.5f);
    auto& data = storage_[name] = std::make_unique<std::vector<float>>(static_cast<std::size_t>(size));
    for (float& x : *data) x = uniform(rng_);
    weights.add(name, {DType::f32, {size}, 1, std::as_bytes(std::span(*data))});
  }

  std::mt19937 rng_;
  std::map<std::string, std::unique_ptr<std::vector<float>>> storage_;
};

}  // namespace tiny
