// What a model's description says of the parts after attention: MLPs, and mixtures of experts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pagedcore/fields.hpp"
#include "pagedcore/mixture.hpp"

namespace pagedcore {

inline constexpr std::int32_t kMostExtent = 1 << 24;  // far above any model; keeps all size arithmetic within 64 bits

struct MlpDescription {
  std::int32_t intermediate_size = 0;
  Activation activation = Activation::silu;
  bool gated = true;
  float swiglu_alpha = 1.702f;
  float swiglu_limit = 7.0f;

  template <class V>
  static void fields(V&& v) {
    using C = MlpDescription;
    v(field("intermediate_size", &C::intermediate_size, "Columns between its two products.", in(1, kMostExtent)));
    v(field(
        "activation", &C::activation,
        "silu, gelu, gelu_tanh, relu, or of a gated MLP clamped_swiglu: (clamp(up(x)) + 1) * g * sigmoid(alpha * g), "
        "g being gate(x), cut off above."));
    v(field("gated_mlp", &C::gated, "act(gate(x)) * up(x) goes into the second product; else act(up(x))."));
    v(field("swiglu_alpha", &C::swiglu_alpha, "Alpha of clamped_swiglu.", at_least(0)));
    v(field("swiglu_limit", &C::swiglu_limit,
            "Of clamped_swiglu: the gate is at most that, up within it on both sides.", above(0)));
  }
};

/// What stands in place of the MLP: some of many small ones, which a router chooses for each row. All have the MLP's
/// activation, and a gate.
struct MixtureDescription {
  std::int32_t num_experts = 0;
  std::int32_t experts_per_token = 0;
  std::int32_t expert_size = 0;
  RouterKind router = RouterKind::softmax;
  bool renormalize = false;
  float router_scale = 1.0f;
  std::int32_t shared_size = 0;
  bool shared_gate = false;
  bool biases = false;
  std::vector<std::int32_t> layers;

  template <class V>
  static void fields(V&& v) {
    using C = MixtureDescription;
    v(field("num_experts", &C::num_experts, "Experts of a layer.", in(1, 1 << 16)).zero_means("an MLP in every layer"));
    v(field("experts_per_token", &C::experts_per_token, "How many of them a row goes to.", in(0, 1 << 16)));
    v(field("expert_size", &C::expert_size, "Columns between the two products of an expert.", in(0, kMostExtent)));
    v(field("router", &C::router,
            "softmax: an expert's share is that of a softmax over all; chosen_softmax: over the chosen ones."));
    v(field("router_renormalize", &C::renormalize, "Shares are divided by their sum."));
    v(field("router_scale", &C::router_scale, "Multiplies the shares.", above(0)));
    v(field("shared_expert_size", &C::shared_size, "Columns of an expert that every row goes to.", in(1, kMostExtent))
          .zero_means("none"));
    v(field("shared_expert_gate", &C::shared_gate,
            "The shared expert is multiplied by the sigmoid of a product of its own."));
    v(field("mixture_biases", &C::biases, "The router and the experts' products have biases."));
    v(field("mixture_layers", &C::layers,
            "For each layer, 1: a mixture; 0: the MLP. Empty: mixtures in every layer, if there are experts.",
            in(0, 1)));
  }
  bool in_layer(std::size_t index) const { return num_experts > 0 && (layers.empty() || layers[index] != 0); }
};

}  // namespace pagedcore
