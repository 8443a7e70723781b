// Weights in the block format of their file. A panel is cut along k into groups of 32; a group holds, for all 2 * lanes
// columns, the scales and then the codes of the group, bit for bit those of the file. Formats with super-blocks put the
// numbers that eight groups share in front of them. Everything grows with the number of columns, so a column takes the
// bytes that it takes in the file (K types: two to four more in 256 weights, for their 6-bit scales become bytes).
//
//   panel   [k / (32 groups)] of: header, then `groups` groups
//   header  [fields][2 * lanes] numbers of 16 bits
//   group   scales [fields][2 * lanes], then codes [4 quarters][planes]
//
// A quarter holds 16 codes for each of `lanes` lanes, code t of a lane being
//   compute type f32:  column v * lanes + lane, k = 2 t + e                                  of quarter 2 v + e
//   compute type bf16: column v * lanes + e * lanes / 2 + lane / 2, k = 2 t + lane % 2       of quarter 2 v + e
// which is the order in which the vectors of a dense panel (layout.hpp) take them. Its planes, in this order, by bits:
//   4, 5, 6  nibbles [2][lanes] of 32 bits: code t in bits 4 (t % 8) of the first for t < 8, of the second else
//   2, 3, 6  pairs [lanes] of 32 bits: code t, of 6 bits its upper two, in bits 2 t
//   3, 5     the upper bit [lanes] of 16 bits: code t in bit t
//   8        [16][lanes] bytes, signed
#pragma once

#include <cstdint>

#include "cpu/isa.hpp"
#include "cpu/matmul/native/widen_table.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore::cpu {

inline constexpr std::int64_t kGroup = 32;  // k of a group

/// What a column takes.
struct NativeFormat {
  DType dtype = DType::f32;
  std::int64_t groups = 1;        // of a header
  std::int64_t header_bytes = 0;  // fields of 2 bytes
  std::int64_t scale_bytes = 0;   // of a group
  std::int64_t scale_field = 2;   // bytes of each of them
  std::int64_t code_bits = 0;
  bool integer = true;  // its codes are integers, which products may multiply as they are

  std::int64_t code_bytes() const noexcept { return code_bits * kGroup / 8; }
  std::int64_t group_bytes() const noexcept { return scale_bytes + code_bytes(); }
  std::int64_t block_bytes() const noexcept { return header_bytes + groups * group_bytes(); }
};

/// The formats that kernels widen; null for another type.
const NativeFormat* native_format(DType dtype) noexcept;
/// The function for a format, an instruction set and a compute type (f32 or bf16).
WidenFunction widen_of(const NativeFormat& format, Isa isa, DType compute);

/// How the codes of a group lie: as dense panels of a type take them (above), or as products in integers do
/// (integer/expand.hpp).
enum class CodeOrder : std::uint8_t { f32, bf16, integer };

/// `codes` and scales of one block of the file, a column's part of header and groups.
struct NativeBlock {
  std::uint8_t header[8];
  std::uint8_t scales[8][4];
  std::uint8_t codes[256];  // in the order of k
};
/// Takes a block of the file apart.
void read_block(const NativeFormat& format, const std::uint8_t* file, NativeBlock& block);
/// Rounds 32 numbers to a block of q8_0 or q4_1. q8_0: the least scale in f16 by which no code exceeds 127, codes to
/// nearest even. q4_1: scale and minimum in f16 that leave the least sum of squared errors, of some that are tried.
/// Numbers that are not finite make all of the block NaN.
void round_block(const NativeFormat& format, const float* numbers, NativeBlock& block);
/// Puts it into column `column` of a panel of 2 * lanes columns, as block `index` along k.
void write_block(const NativeFormat& format, const NativeBlock& block, int lanes, CodeOrder order, int column,
                 std::int64_t index, unsigned char* panel);

}  // namespace pagedcore::cpu
