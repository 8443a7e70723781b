// One product on the device, beside the same product in double.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/matmul.hpp"
#include "kernels/matmul_pack.hpp"

namespace pagedcore::cuda {

struct MatmulCase {
  std::int32_t m = 1, n = 16, k = 32;
  DType type = DType::bf16;
  WeightFormat format = WeightFormat::native;
  std::int32_t k_groups_per_scale = 1;
  Epilogue::Kind finish = Epilogue::Kind::store;
  Activation activation = Activation::silu;
  bool bias = false, narrow_out = false;
  std::int32_t in_gap = 0, out_gap = 0;  // columns between rows
  bool exact_scales = false;             // powers of two, so that scale * q is exact in either type
  std::int32_t block_tiles = 1;
  std::uint32_t seed = 1;
  std::vector<std::int64_t> leaf_ends = {};

  std::string text() const;
};

/// Inputs of unit variance, weights of variance 1 / k, so that sums have unit variance whatever k. Quantized weights
/// are drawn on their own grid, so that packing loses nothing and the reference is exact.
class MatmulProblem {
 public:
  explicit MatmulProblem(const MatmulCase& c);

  /// Rows as the device computes them, each [n], and nothing changed between them (checked). `order`: which rows of the
  /// problem are given, in which places; none: all. `block_tiles`: 0: the case's.
  std::vector<std::vector<float>> run(const std::vector<int>& order = {}, std::int32_t block_tiles = 0) const;
  /// Likewise, as `launch` computes them.
  std::vector<std::vector<float>> run_by(const std::function<void(const MatmulArgs&)>& launch,
                                         const std::vector<int>& order = {}) const;
  /// Makes the first input of a row NaN.
  void poison(int row);
  /// The same with inputs of zero outside columns [first, end), and without epilogue, to f32.
  MatmulProblem columns(std::int64_t first, std::int64_t end) const;
  float bias(int output) const { return bias_[static_cast<std::size_t>(output)]; }
  /// What an accumulated row begins with.
  float before(int row, int output) const;
  /// Row `row` in double.
  std::vector<double> reference(int row) const;

 private:
  MatmulCase c_;
  PackSpec spec_;
  std::vector<float> in_, weights_, bias_, before_;  // [m][k], [n or 2 n][k], [n or 2 n], [m][n]
};

}  // namespace pagedcore::cuda
