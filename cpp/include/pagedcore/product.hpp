// Products of rows with weights: what happens to their sums, and what adapters add to them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/mixture.hpp"
#include "pagedcore/tensor.hpp"
#include "pagedcore/weight.hpp"

namespace pagedcore {

/// One matrix W of an adapter (LoRA, Hu et al. 2021): W x becomes W x + scale * up (down x).
struct LowRankPart {
  std::int64_t first_column = 0;  // of the product's sums to which it adds; of a gated pair the ups begin at n
  std::int64_t columns = 0;
  std::int64_t rank = 0;
  HostTensor down = {};  // [rank, k]
  HostTensor up = {};    // [columns, rank]
  float scale = 1.0f;
};

/// What an adapter has for one weight: parts whose columns do not overlap, in their order.
struct LowRankForm {
  PackKind kind = PackKind::stacked;  // of the weight
  std::int64_t n = 0, k = 0;          // of the weight
  std::vector<LowRankPart> parts;

  std::int64_t columns() const noexcept { return kind == PackKind::gated ? 2 * n : n; }
  std::int64_t ranks() const noexcept {
    std::int64_t all = 0;
    for (const LowRankPart& part : parts) all += part.rank;
    return all;
  }
};

/// The same in the layout of its backend. Immutable.
class PAGEDCORE_API LowRankWeight {
 public:
  virtual ~LowRankWeight();
  virtual std::int64_t k() const noexcept = 0;
  virtual std::int64_t columns() const noexcept = 0;  // LowRankForm::columns()
  virtual std::int64_t ranks() const noexcept = 0;    // of all parts together
  virtual std::size_t bytes() const noexcept = 0;
};

/// Which rows of a step have an adapter, sorted by adapter, then by row: adapter g has rows[ends[g - 1], ends[g]).
struct LowRankRows {
  std::span<const std::int32_t> rows;
  std::span<const std::int32_t> ends;             // [adapters]
  std::span<const LowRankWeight* const> weights;  // [adapters]; null: it adds nothing to this product
};

/// What a matmul adds to the sums of those rows: up times what Backend::low_rank() made of its input.
struct LowRankSums {
  LowRankRows of;
  Tensor down;  // f32 [rows of `of`, at least ranks() of each weight]: row i is that of of.rows[i]
};

/// What happens to the rows of a matmul before they are stored. Of low_rank, up (down x) is added after the bias.
struct Epilogue {
  enum class Kind : std::uint8_t {
    store,       // out = x W^T + bias
    accumulate,  // out += x W^T + bias
    gated,       // out = act(x Wg^T + bg) * (x Wu^T + bu); the weight is a gated pair, out has n() columns
    activated,   // out = act(x W^T + bias)
  };
  Kind kind = Kind::store;
  Activation activation = Activation::silu;
  const Tensor* bias = nullptr;       // f32 [1, n], of a gated pair [1, 2 n]: bg, then bu; or none
  const Tensor* row_scale = nullptr;  // of gated: f32 [rows, 1], multiplies what is stored of each row; or none
  SwigluParams swiglu = {};
  const LowRankSums* low_rank = nullptr;  // or none
};

}  // namespace pagedcore
