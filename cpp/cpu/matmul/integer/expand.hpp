// From panels in a block format to codes of a byte: the loops around the formats of native/types.hpp. Include after
// quads_*.hpp, in per-ISA sources.
//
// Codes of a group of a panel for integer products: [2 vectors of columns][planes] of lanes * 4 bytes, byte k % 4 of
// dword `column` belonging to step k / 4 of the group's eight. Planes, in this order, by bits:
//   4, 5, 6  four of nibbles: step i, of 6 bits its lower four, in the low half of bytes of plane i, step i + 4 in the
//   high 2, 3, 6  two of pairs: step i, of 6 bits its upper two, in bits 2 (i % 4) of plane i / 4 3, 5     one of upper
//   bits: step i in bit i 8        eight: step i in plane i, signed
// Expanded, a group is [8 steps][2 vectors] of bytes, the scales in f32 [halves][2 * lanes], then as many minima.
#pragma once

#include "cpu/matmul/integer/kernel.hpp"
#include "cpu/matmul/native/types.hpp"

namespace pagedcore::cpu {
namespace {

constexpr std::int64_t kExpandAhead = 2048;  // bytes of codes that are asked for before their use

template <int Shift>  // to the left; negative: to the right
inline Quads::V shifted(Quads::V x) {
  if constexpr (Shift > 0) return Quads::left<Shift>(x);
  if constexpr (Shift < 0) return Quads::right<-Shift>(x);
  return x;
}

/// Codes of `Step` from the planes of one vector of columns.
template <int Bits, int Step>
inline Quads::V codes_of(const Byte* planes) {
  constexpr int kNibbles = Bits == 4 || Bits == 5 || Bits == 6 ? 4 : 0, kPairs = Bits % 4 == 0 || Bits == 5 ? 0 : 2;
  if constexpr (Bits == 8) {
    const Quads::V codes = Quads::load(planes + Step * Quads::kBytes);
    return Quads::kSigned ? codes : Quads::flipped(codes, 128);
  }
  Quads::V codes = Quads::zero();
  if constexpr (kNibbles > 0)
    codes = Quads::masked(shifted < Step < 4 ? 0 : -4 > (Quads::load(planes + Step % 4 * Quads::kBytes)), 15);
  constexpr int kFrom = Bits == 6 ? 4 : 0, kUpper = Bits == 3 ? 2 : 4;  // where pairs and the upper bit go
  if constexpr (kPairs > 0) {
    const Quads::V pairs = Quads::load(planes + (kNibbles + Step / 4) * Quads::kBytes);
    codes = Quads::either(codes, Quads::masked(shifted<kFrom - Step % 4 * 2>(pairs), 3 << kFrom));
  }
  if constexpr (Bits == 3 || Bits == 5) {
    const Quads::V bits = Quads::load(planes + (kNibbles + kPairs) * Quads::kBytes);
    codes = Quads::either(codes, Quads::masked(shifted<kUpper - Step>(bits), 1 << kUpper));
  }
  return codes;
}

template <int Bits, int Step = 0>
inline void expand_codes(const Byte* planes, Byte* out) {
  if constexpr (Step < 8) {
    Quads::store(out + 2 * Step * Quads::kBytes, codes_of<Bits, Step>(planes));
    expand_codes<Bits, Step + 1>(planes, out);
  }
}

template <class Type>
constexpr std::int64_t kExpandedBytes = (32 + 4 * Type::kHalves * (Type::kMinimum ? 2 : 1)) * kColumns;

template <class Type>
void expand_group(const Byte* header, const Byte* scales, Byte* out) {
  const Byte* codes = scales + Type::kScaleBytes * kColumns;
  float* const numbers = reinterpret_cast<float*>(out + 32 * kColumns);
  for (int v = 0; v < 2; ++v) {
    expand_codes<Type::Codes::kBits>(codes + v * Type::Codes::kBits * Quads::kBytes, out + v * Quads::kBytes);
    for (int half = 0; half < Type::kHalves; ++half) {
      Simd::store(numbers + (2 * half + v) * kLanes, Type::scale(header, scales, v, half));
      if constexpr (Type::kMinimum)
        Simd::store(numbers + (2 * (Type::kHalves + half) + v) * kLanes, Type::minimum(header, scales, v, half));
    }
  }
}

template <class Type>
void expand(const unsigned char* panel, std::int64_t first, std::int64_t groups, void* to) {
  constexpr std::int64_t kGroupBytes = (Type::kScaleBytes + 4 * Type::Codes::kBits) * kColumns;
  constexpr std::int64_t kHeader = Type::kHeaderBytes * kColumns, kBlock = kHeader + Type::kGroups * kGroupBytes;
  Byte* out = static_cast<Byte*>(to);
  for (std::int64_t g = first; g < first + groups; ++g, out += kExpandedBytes<Type>) {
    const Byte* header = panel + g / Type::kGroups * kBlock;
    const Byte* scales = header + kHeader + g % Type::kGroups * kGroupBytes;
    for (std::int64_t line = 0; line < kGroupBytes; line += 64) __builtin_prefetch(scales + kExpandAhead + line, 0, 2);
    expand_group<Type>(header, scales, out);
  }
}

}  // namespace
}  // namespace pagedcore::cpu
