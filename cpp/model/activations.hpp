// The scratch of the forward pass: one buffer, sized for the largest step, reused by every layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "pagedcore/model.hpp"

namespace pagedcore {

/// Where everything lies in the buffer. Regions that are never needed at the same time share their bytes: the normed
/// input of a layer with its attention output (the q, k, v product has consumed the one when the other is written),
/// and qkv and q with the MLP's inner activations.
struct ActivationLayout {
  ActivationLayout(const ModelDescription& description, DType compute, std::uint32_t max_rows,
                   std::uint32_t max_logit_rows);

  std::int64_t rows;                                                          // most rows of a step
  std::int64_t logit_rows;                                                    // most rows of one piece of logits
  std::size_t residual, normed, wide, q, tail_residual, tail_normed, logits;  // byte offsets
  std::size_t bytes;
};

/// Matrices of one layer's computation over the same rows.
struct LayerScratch {
  Tensor residual;  // f32 [rows, hidden]
  Tensor normed;    // compute type [rows, hidden]; shares memory with attended
  Tensor attended;  // compute type [rows, q_size]
  Tensor inner;     // compute type [rows, intermediate]; shares memory with qkv and q
};

class Activations {
 public:
  Activations(const ModelDescription& description, Backend& backend, std::uint32_t max_rows,
              std::uint32_t max_logit_rows);

  std::int64_t max_rows() const noexcept { return layout_.rows; }
  std::int64_t max_logit_rows() const noexcept { return layout_.logit_rows; }
  std::size_t bytes() const noexcept { return buffer_->bytes(); }

  // Views for a step of `rows` rows, and for the rows of one piece of logits.
  LayerScratch layer(std::int64_t rows) const noexcept;
  Tensor qkv(std::int64_t rows) const noexcept;  // f32 [rows, qkv_size]
  Tensor q(std::int64_t rows) const noexcept;    // compute type [rows, q_size]
  LayerScratch tail(std::int64_t rows) const noexcept;
  Tensor logits(std::int64_t rows) const noexcept;  // f32 [rows, vocab]

 private:
  Tensor view(std::size_t offset, DType dtype, std::int64_t rows, std::int64_t cols) const noexcept;

  const ModelDescription& d_;
  DType compute_;
  ActivationLayout layout_;
  std::unique_ptr<Buffer> buffer_;
};

}  // namespace pagedcore
