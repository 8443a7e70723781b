// The packed matrix. Panels of 2 * lanes columns lie one after another; inside a panel k runs slowest:
//   f32   [panels][k][2 * lanes]
//   bf16  [panels][k_padded / 2][2 * lanes][2]   two consecutive k of a column side by side, as dot products take them
// A stacked weight's panel holds consecutive rows of the matrix; a gated pair's holds `lanes` rows of the gate, then
// the same `lanes` rows of the up matrix, so that one tile sees both factors of its outputs. Padding is zero. Each leaf
// of k begins with a step of its own: it is padded to a multiple of the kernel's k_multiple.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/isa.hpp"
#include "cpu/matmul/kernel.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu {

/// The kernel that serves a compute type on an instruction set.
const MatmulKernel& kernel_of(Isa isa, DType dtype);

struct PackedLayout {
  std::vector<MatmulLeaf> leaves;  // at least one
  std::int64_t k_padded = 0;
  std::int64_t panels = 0;
  std::int64_t panel_bytes = 0;

  /// Throws InvalidArgument where the matrix is empty, its bytes overflow, or the leaves do not cover k.
  PackedLayout(std::int64_t n, std::int64_t k, const WeightForm& form, const MatmulKernel& kernel, DType dtype);
  std::size_t bytes() const noexcept { return static_cast<std::size_t>(panels * panel_bytes); }
};

class PackedWeight final : public Weight {
 public:
  /// Memory for the panels, not yet written. Throws OutOfMemory.
  PackedWeight(std::int64_t n, std::int64_t k, const WeightForm& form, Isa isa, DType dtype);

  std::int64_t n() const noexcept override { return n_; }
  std::int64_t k() const noexcept override { return k_; }
  std::size_t bytes() const noexcept override { return layout_.bytes(); }
  PackKind kind() const noexcept { return kind_; }
  DType dtype() const noexcept { return dtype_; }
  const MatmulKernel& kernel() const noexcept { return kernel_; }
  const PackedLayout& layout() const noexcept { return layout_; }
  std::byte* panel(std::int64_t i) noexcept { return memory_.get() + i * layout_.panel_bytes; }
  const std::byte* panel(std::int64_t i) const noexcept { return memory_.get() + i * layout_.panel_bytes; }

 private:
  struct Free {
    void operator()(std::byte* p) const noexcept;
  };
  std::int64_t n_, k_;
  PackKind kind_;
  DType dtype_;
  const MatmulKernel& kernel_;
  PackedLayout layout_;
  std::unique_ptr<std::byte, Free> memory_;
};

}  // namespace pagedcore::cpu
