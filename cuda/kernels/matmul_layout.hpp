// The packed weight matrix: the matrix cut into tiles of 16 rows by 32 columns, every tile in the order in which the
// lanes of a warp want it as operand A of two mma.m16n8k16. A warp therefore reads a tile as consecutive bytes, 16 (or,
// of 4-bit weights, 8) a lane, straight from memory into registers: nothing is transposed or shuffled on the way.
//
//   weights  [row tiles][k groups of 32][512 elements]
//   scales   of int8_row    f32 [row tiles][8][2]
//            of int8_group  T   [row tiles][scale groups][8][2]
//            of int4_group  T   [row tiles][scale groups][8][2 scales, 2 zero points]
//
// Two freedoms make that possible. A sum over k may take k in any order as long as both operands take the same: lane
// (g, t) holds k = 8 t .. 8 t + 7 of a group, which is also what it reads of an input row in one load of 16 bytes. And
// rows may go to any place of a tile: rows g and g + 8 of a tile, which one lane holds, are
//   stacked: outputs 16 tile + 2 g and + 1, stored by one instruction;
//   gated:   gate and up of output 8 tile + g, combined in registers.
// Padding (rows past n, columns past k) is zero.
//
// Leaves of k (WeightForm) begin with a group of their own: the last group of each is padded. Only the native format
// has more than one leaf. Where they end stands behind the weights: MatmulLeaf[leaves].
//
// A plain weight has none of this: it is the matrix as it stands, for cuBLASLt, and only embedding reads it here.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define PC_HOST_DEVICE __host__ __device__
#else
#define PC_HOST_DEVICE
#endif

namespace pagedcore::cuda {

/// How a weight is kept. T is the type of the inputs, f16 or bf16.
enum class WeightFormat : std::uint8_t {
  native,      // T
  int8_row,    // w = scale[row] * q: the scale, f32, multiplies the finished sum
  int8_group,  // w = T(scale[row, group] * q)
  int4_group,  // w = T(scale[row, group] * (q - zero[row, group])), q and zero in [0, 15]
  plain,       // T [n, k], of a gated pair [2 n, k]: gate rows, then up rows; not packed, no kernel multiplies it
};

inline constexpr int kTileRows = 16;
inline constexpr int kGroupK = 32;  // columns of a tile
inline constexpr int kSplits = 8;   // pieces of k that are summed apart, then added in order; see matmul.hpp
inline constexpr int kTileElements = kTileRows * kGroupK;

constexpr PC_HOST_DEVICE int bits_of(WeightFormat format) {
  return format == WeightFormat::native || format == WeightFormat::plain ? 16
         : format == WeightFormat::int4_group                            ? 4
                                                                         : 8;
}
constexpr PC_HOST_DEVICE int tile_bytes(WeightFormat format) { return kTileElements * bits_of(format) / 8; }

/// Place of an output's row among the rows of all tiles.
constexpr PC_HOST_DEVICE std::int64_t stacked_row(std::int64_t output) {
  return output / 16 * 16 + output % 16 / 2 + output % 2 * 8;
}
/// Likewise of a gated pair; half 0 is the gate.
constexpr PC_HOST_DEVICE std::int64_t gated_row(std::int64_t output, int half) {
  return output / 8 * 16 + output % 8 + half * 8;
}

/// Place within a tile, in elements, of row r in [0, 16) and column j in [0, 32): lane 4 (r % 8) + j / 8 holds, for
/// each of the two instructions, 4 columns of row r % 8 and the same columns of row r % 8 + 8. (4-bit elements: see
/// int4_shift.)
constexpr PC_HOST_DEVICE int tile_offset(int r, int j) {
  const int lane = r % 8 * 4 + j / 8, step = j / 4 % 2;
  return ((step * 32 + lane) * 2 + r / 8) * 4 + j % 4;
}
/// For the formats of 8 bits a lane's elements of both steps lie side by side, for one load of 16 bytes.
constexpr PC_HOST_DEVICE int tile_offset8(int r, int j) {
  const int lane = r % 8 * 4 + j / 8, step = j / 4 % 2;
  return ((lane * 2 + step) * 2 + r / 8) * 4 + j % 4;
}
/// For 4 bits they are the two 32-bit words 2 lane + step; in each, four pairs of elements whose first lies at bit 4 p
/// and whose second at bit 16 + 4 p, so that one mask yields both halves of a register.
constexpr PC_HOST_DEVICE int int4_word(int r, int j) { return (r % 8 * 4 + j / 8) * 2 + j / 4 % 2; }
constexpr PC_HOST_DEVICE int int4_shift(int r, int j) { return (r / 8 * 2 + j % 4 / 2) * 4 + j % 2 * 16; }

/// A leaf ends before column `column` of k and before group `group` of the packed weight.
struct MatmulLeaf {
  std::int32_t column = 0, group = 0;
};
inline constexpr int kMostLeavesOfKernel = 128;  // what sums that wait have room for: see matmul_leaves.cuh

constexpr PC_HOST_DEVICE std::int64_t k_groups(std::int64_t k) { return (k + kGroupK - 1) / kGroupK; }
/// Groups of k in one split: the same for every number of input rows.
constexpr PC_HOST_DEVICE std::int64_t groups_per_split(std::int64_t k) { return (k_groups(k) + kSplits - 1) / kSplits; }

}  // namespace pagedcore::cuda
