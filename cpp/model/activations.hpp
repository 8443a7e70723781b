// The scratch of the forward pass: one buffer, sized for the largest step, reused by every layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "model/shard.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore {

/// Whether attention and MLP end in a product that adds to the residual stream.
inline bool adds_at_once(const ModelDescription& d) noexcept {
  return (d.norm.place == NormPlace::before || d.norm.place == NormPlace::outside) && d.residual_scale == 1.0f;
}

/// Columns of a router's logits: an expert each, and the shared expert's gate.
inline std::int64_t router_columns(const MixtureDescription& m) noexcept {
  return m.num_experts + (m.shared_gate ? 1 : 0);
}

/// Columns between the two products of the MLP, where a layer has one.
inline std::int64_t mlp_columns(const ModelDescription& d) noexcept {
  for (std::int32_t layer = 0; layer < d.num_layers; ++layer)
    if (!d.mixture.in_layer(static_cast<std::size_t>(layer))) return d.mlp.intermediate_size;
  return 0;
}

/// Rows of the largest step, and of the largest piece of its logits.
struct MostRows {
  std::uint32_t step = 0;
  std::uint32_t logits = 0;
};

/// Where everything lies in the buffer. Regions that are never needed at the same time share their bytes: the normed
/// input of a layer with its attention output (the q, k, v product has consumed the one when the other is written),
/// and qkv and q with the MLP's inner activations. A parallel block reads its input again after attention: there the
/// attention output has a region of its own.
struct ActivationLayout {
  ActivationLayout(const ModelDescription& description, const Shard& shard, DType compute, const MostRows& most);

  std::int64_t rows;                                                // most rows of a step
  std::int64_t logit_rows;                                          // most rows of one piece of logits
  std::size_t residual, normed, attended, wide, q, branch, logits;  // byte offsets
  std::size_t inner, routes, shares, router_logits;                 // of a mixture
  std::size_t tail_residual, tail_normed, tail_attended;
  std::size_t dense, dense_input;
  std::size_t exchanged;  // of ranks: what they send, then what they receive
  std::size_t bytes;
};

/// Matrices of one layer's computation over the same rows.
struct LayerScratch {
  Tensor residual;   // f32 [rows, hidden]
  Tensor normed;     // compute type [rows, hidden]; may share memory with attended
  Tensor attended;   // compute type [rows, q_size]
  Tensor inner;      // compute type [rows, intermediate]; shares memory with qkv and q
  Tensor branch;     // f32 [rows, hidden]: what attention or MLP adds, where it cannot be added at once
  Tensor embedding;  // compute type [rows, embedding size], before and after all layers; shares memory with inner
};

/// Matrices of a mixture of experts over the same rows.
struct MixtureScratch {
  Tensor gathered, inner;  // see Mixture; they share memory with LayerScratch::inner
  Tensor shared;           // compute type [rows, shared expert's size], after those; likewise
  Tensor normed;           // f32 [rows, hidden]: LayerScratch::normed before it is rounded; likewise, before those
  Tensor logits;           // f32 [rows, experts and gate]
  Routing routing;
};

class Activations {
 public:
  Activations(const ModelDescription& description, const Shard& shard, Backend& backend, const MostRows& most);

  std::int64_t max_rows() const noexcept { return layout_.rows; }
  std::int64_t max_logit_rows() const noexcept { return layout_.logit_rows; }
  std::size_t bytes() const noexcept { return buffer_->bytes(); }

  // Views for a step of `rows` rows, and for the rows of one piece of logits.
  LayerScratch layer(std::int64_t rows) const noexcept;
  MixtureScratch mixture(std::int64_t rows) const noexcept;
  Tensor qkv(std::int64_t rows) const noexcept;       // f32 [rows, qkv_size]
  Tensor q(std::int64_t rows) const noexcept;         // compute type [rows, q_size]
  Tensor embedded(std::int64_t rows) const noexcept;  // f32 [rows, embedding size]; shares memory with branch
  LayerScratch tail(std::int64_t rows) const noexcept;
  Tensor logits(std::int64_t rows) const noexcept;  // f32 [rows, vocab]; of a rank above 0: its part of them
  float* sent() const noexcept;                     // see ExchangeSizes
  float* received() const noexcept;
  // Of a product of embeddings: what comes out, f32, and what goes in, of the compute type.
  Tensor dense(std::int64_t rows, std::int64_t cols) const noexcept;
  Tensor dense_input(std::int64_t rows, std::int64_t cols) const noexcept;

 private:
  LayerScratch scratch(std::int64_t rows, std::size_t residual, std::size_t normed,
                       std::size_t attended) const noexcept;
  Tensor view(std::size_t offset, DType dtype, std::int64_t rows, std::int64_t cols) const noexcept;

  const ModelDescription d_;  // the rank's part
  DType compute_;
  ActivationLayout layout_;
  std::size_t sent_bytes_;
  std::int64_t logit_columns_;
  std::unique_ptr<Buffer> buffer_;
};

}  // namespace pagedcore
