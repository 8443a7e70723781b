// Host side of the weights: sizes, quantization and placement (matmul_layout.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/matmul_layout.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore::cuda {

/// A matrix [n, k], of a gated pair two of them.
struct PackSpec {
  std::int64_t n = 0;
  std::int64_t k = 0;
  PackKind kind = PackKind::stacked;
  WeightFormat format = WeightFormat::native;
  DType type = DType::bf16;                  // T: f16 or bf16
  std::int32_t k_groups_per_scale = 4;       // formats with groups: columns per scale / 32
  std::vector<std::int64_t> leaf_ends = {};  // as WeightForm's; several of the native format only

  std::int64_t rows() const noexcept { return kind == PackKind::gated ? 2 * n : n; }
  std::int64_t tiles() const noexcept { return kind == PackKind::gated ? (n + 7) / 8 : (n + 15) / 16; }
  /// Of 32 columns, of all leaves.
  std::int64_t groups() const noexcept { return leaf_end(leaf_ends.empty() ? 0 : leaf_ends.size() - 1).group; }
  MatmulLeaf leaf_end(std::size_t leaf) const noexcept {
    if (leaf_ends.empty()) return {static_cast<std::int32_t>(k), static_cast<std::int32_t>(k_groups(k))};
    std::int64_t last = 0, group = 0;
    for (std::size_t i = 0; i <= leaf; last = leaf_ends[i++]) group += k_groups(leaf_ends[i] - last);
    return {static_cast<std::int32_t>(last), static_cast<std::int32_t>(group)};
  }
  std::int64_t scale_groups() const noexcept { return (k_groups(k) + k_groups_per_scale - 1) / k_groups_per_scale; }
  std::size_t tile_bytes_of_all() const noexcept {
    return static_cast<std::size_t>(tiles() * groups()) * static_cast<std::size_t>(tile_bytes(format));
  }
  /// With the ends of the leaves, where there are several: they follow the tiles.
  std::size_t weight_bytes() const noexcept {
    if (format == WeightFormat::plain) return static_cast<std::size_t>(rows()) * static_cast<std::size_t>(k) * 2;
    return tile_bytes_of_all() + (leaf_ends.size() > 1 ? leaf_ends.size() * sizeof(MatmulLeaf) : 0);
  }
  std::size_t scale_bytes() const noexcept;
};

/// Writes row `row` as f32; of a gated pair, rows [0, n) are the gate's and [n, 2 n) the up matrix's.
using RowSource = std::function<void(std::int64_t row, std::span<float> values)>;

/// Calls the body with 0 to count - 1, in any order, on any threads, and returns when all have returned.
using Parallel = std::function<void(std::int64_t count, const std::function<void(std::int64_t)>& body)>;

/// Packs all rows into host memory of weight_bytes() and scale_bytes(). Quantization is to the nearest: int8 by the
/// largest magnitude of the row or group, 4 bits by its range, widened to hold 0. Tiles are packed by `parallel`, which
/// calls `rows` from its threads; the bytes do not depend on how many there are.
void pack_matrix(const PackSpec& spec, const RowSource& rows, std::span<std::byte> weights, std::span<std::byte> scales,
                 const Parallel& parallel);

}  // namespace pagedcore::cuda
