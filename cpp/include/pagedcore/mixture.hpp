// Feed-forward parts: activations, and mixtures of experts, some of which a router chooses for each row.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "pagedcore/fields.hpp"
#include "pagedcore/tensor.hpp"
#include "pagedcore/weight.hpp"

namespace pagedcore {

enum class Activation : std::uint8_t {
  silu,
  gelu,
  gelu_tanh,
  relu,
  clamped_swiglu,  // of gated products only: (clamp(up) + 1) * g * sigmoid(alpha * g), see SwigluParams
};
template <>
struct Words<Activation> {
  static constexpr Word<Activation> list[] = {{Activation::silu, "silu"},
                                              {Activation::gelu, "gelu"},
                                              {Activation::gelu_tanh, "gelu_tanh"},
                                              {Activation::relu, "relu"},
                                              {Activation::clamped_swiglu, "clamped_swiglu"}};
};

/// Of Activation::clamped_swiglu: g is the gate, at most `limit`, and up lies within [-limit, limit].
struct SwigluParams {
  float alpha = 1.702f;
  float limit = 7.0f;
};

/// What becomes of a router's logits, f32: the experts with the largest ones are chosen, of equal ones the first, and
/// each gets a share of the row.
enum class RouterKind : std::uint8_t {
  softmax,         // shares are those of a softmax over all experts
  chosen_softmax,  // of a softmax over the chosen ones
};
template <>
struct Words<RouterKind> {
  static constexpr Word<RouterKind> list[] = {{RouterKind::softmax, "softmax"},
                                              {RouterKind::chosen_softmax, "chosen_softmax"}};
};
struct RouterParams {
  RouterKind kind = RouterKind::softmax;
  bool renormalize = false;  // shares are divided by their sum
  float scale = 1.0f;        // multiplies them then
  bool gate = false;         // the last logit is no expert's: its sigmoid is the share of the shared expert
};

/// Where the rows of a step go.
struct Routing {
  Tensor experts;  // i32 [rows, chosen]: of each row, ascending; these are its slots
  Tensor shares;   // f32 [rows, chosen], with RouterParams::gate one column more
};

/// The experts of a layer, each a gated pair `up` [inner, k] and a matrix `down` [n, inner] of equal forms, and memory
/// for what lies between.
struct Mixture {
  std::span<const std::unique_ptr<Weight>> up, down;  // [experts]
  Activation activation = Activation::silu;
  bool accumulate = false;  // out += what they give; else out = that
  Tensor gathered;          // compute_dtype() [rows * chosen, k]
  Tensor inner;             // compute_dtype() [rows * chosen, inner]
  SwigluParams swiglu = {};
  /// f32 [experts, 2 * inner], of each that of the gate, then that of up, and [experts, n]; or none.
  const Tensor* up_bias = nullptr;
  const Tensor* down_bias = nullptr;
};

}  // namespace pagedcore
