// What products over packed weights share: their arguments, how the work is cut, and kernels run on panels that may be
// kept in several ways.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/matmul/layout.hpp"

namespace pagedcore::cpu {

/// in W^T without bias; the output, and what happens to sums before they are stored, are the caller's to say.
MatmulArgs product_args(const Tensor& in, const PackedWeight& weight);

/// The work cut into rectangles of panels x rows. Nothing here touches the order of any sum.
struct Partition {
  std::int64_t panels, rows;                      // extents of one rectangle
  std::int64_t panel_groups = 1, row_groups = 1;  // how many of them

  Partition(std::int64_t m, const PackedWeight& weight, int threads);
  std::int64_t count() const { return panel_groups * row_groups; }
  /// Rectangle `i` of an m rows high product.
  MatmulBlock block(std::int64_t i, std::int64_t m, const PackedWeight& weight) const;
};

/// Runs a kernel on blocks of a weight.
class BlockRunner {
 public:
  /// The weight must outlive it. `integer`: the same for panels of integer products, its input in integers.
  BlockRunner(const PackedWeight& weight, const MatmulArgs& args, const MatmulArgs& integer);
  /// Of a weight that has no such panels.
  BlockRunner(const PackedWeight& weight, const MatmulArgs& args) : BlockRunner(weight, args, args) {}

  /// Bytes that a call needs, a multiple of 64: at least as many as one of fewer rows.
  std::int64_t scratch_bytes() const { return kernel_bytes_ + widened_bytes_; }
  /// `next_panel`: where the block begins that this worker is likely to get next. `scratch` is 64-byte aligned and
  /// belongs to this call.
  void operator()(const MatmulBlock& block, std::int64_t next_panel, std::byte* scratch) const;

 private:
  bool in_kernel(const PanelRun& run) const;
  WidenFunction widen_of(const PanelRun& run) const;
  void compute(const PanelRun& run, const MatmulArgs& args, const MatmulBlock& block, std::byte* scratch) const;
  void widen(const PanelRun& run, const MatmulBlock& block, std::int64_t next_panel, std::byte* scratch) const;

  const PackedWeight& weight_;
  const MatmulArgs args_, integer_;
  bool few_ = false;
  std::int64_t widened_bytes_ = 0;
  std::int64_t kernel_bytes_ = 0;
};

}  // namespace pagedcore::cpu
