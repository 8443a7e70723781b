// The packed matrix. Panels of 2 * lanes columns lie one after another; inside a panel k runs slowest:
//   f32   [panels][k][2 * lanes]
//   bf16  [panels][k_padded / 2][2 * lanes][2]   two consecutive k of a column side by side, as dot products take them
// A stacked weight's panel holds consecutive rows of the matrix; a gated pair's holds `lanes` rows of the gate, then
// the same `lanes` rows of the up matrix, so that one tile sees both factors of its outputs. Padding is zero. Each leaf
// of k begins with a step of its own: it is padded to a multiple of the kernel's k_multiple.
// A panel whose columns all come from one block format may instead keep that (native/format.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cpu/isa.hpp"
#include "cpu/large_memory.hpp"
#include "cpu/matmul/integer/kernel.hpp"
#include "cpu/matmul/kernel.hpp"
#include "cpu/matmul/matmul.hpp"
#include "cpu/matmul/native/format.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu {

/// The kernel that serves a compute type on an instruction set.
const MatmulKernel& kernel_of(Isa isa, DType dtype);

/// The kernel of integer products for an instruction set, the best that this CPU has.
const IntegerKernel& integer_kernel_of(Isa isa) noexcept;
const IntegerProduct& product_of(const IntegerKernel& kernel, const NativeFormat& format) noexcept;

/// The block format that a matrix of `dtype` with `k` columns is kept in; null where it is dense.
const NativeFormat* kept_format(DType dtype, std::int64_t k, const PanelForms& forms) noexcept;

/// Consecutive panels that are kept alike.
struct PanelRun {
  std::int64_t first = 0, end = 0;       // panels
  const NativeFormat* format = nullptr;  // null: they are in the compute type
  bool integer = false;                  // codes lie as products in integers take them
  std::int64_t panel_bytes = 0;
  std::int64_t offset = 0;  // of the first one from the weight's begin

  std::int64_t bytes() const noexcept { return (end - first) * panel_bytes; }
};

struct PackedLayout {
  std::vector<MatmulLeaf> leaves;        // at least one
  std::vector<MatmulLeaf> input_groups;  // the same, for integer products: `padded_end` counts 32 for each input group
  std::int64_t k_padded = 0;
  std::int64_t panels = 0;
  std::int64_t panel_bytes = 0;  // of a panel in the compute type
  std::vector<PanelRun> runs;    // at least one, in order

  /// `parts`: the matrices that are packed, if panels may have other `forms` by the types of theirs; only types and
  /// shapes matter. Throws InvalidArgument where the matrix is empty, its bytes overflow, or the leaves do not cover k.
  PackedLayout(std::int64_t n, std::int64_t k, const WeightForm& form, const MatmulKernel& kernel, DType dtype,
               std::span<const HostTensor> parts = {}, const PanelForms& forms = {});
  bool has_integer() const noexcept;
  PackedSize size() const noexcept;
  const PanelRun& run_of(std::int64_t panel) const noexcept;
};

class PackedWeight final : public Weight {
 public:
  /// Memory for the panels, not yet written. Throws OutOfMemory.
  PackedWeight(std::int64_t n, std::int64_t k, const WeightForm& form, Isa isa, DType dtype,
               std::span<const HostTensor> parts = {}, const PanelForms& forms = {});

  std::int64_t n() const noexcept override { return n_; }
  std::int64_t k() const noexcept override { return k_; }
  std::size_t bytes() const noexcept override { return layout_.size().bytes; }
  PackedSize size() const noexcept override { return layout_.size(); }
  PackKind kind() const noexcept { return kind_; }
  DType dtype() const noexcept { return dtype_; }
  Isa isa() const noexcept { return isa_; }
  const MatmulKernel& kernel() const noexcept { return kernel_; }
  const IntegerKernel* integer() const noexcept { return integer_; }  // null: no panel is for integer products
  const PackedLayout& layout() const noexcept { return layout_; }
  std::byte* panel(std::int64_t i) noexcept { return memory_.get() + offset(i); }
  const std::byte* panel(std::int64_t i) const noexcept { return memory_.get() + offset(i); }

 private:
  std::int64_t offset(std::int64_t panel) const noexcept {
    const PanelRun& run = layout_.run_of(panel);
    return run.offset + (panel - run.first) * run.panel_bytes;
  }
  std::int64_t n_, k_;
  PackKind kind_;
  DType dtype_;
  Isa isa_;
  const MatmulKernel& kernel_;
  PackedLayout layout_;
  const IntegerKernel* integer_;
  LargeMemory memory_;
};

}  // namespace pagedcore::cpu
