// One struct per block format: where a column's scales are, and how a code becomes a number. `header`, `scales` and
// codes lie as format.hpp says. `scale` and `minimum` give those of columns v * lanes on; `half` says which half of a
// group, where each half has its own (kHalves). Products of a scale and a code are exact in f32 (11 bits of f16, at
// most 8 of a scale's own factor and 8 of a code: 24), so one rounding, that of an addition, is all there is, fused or
// not; where scales are any f32, codes are made exact first, and the product is rounded once (kZeroPoint). Include
// after lanes_*.hpp, in per-ISA sources only.
#pragma once

#include <cstdint>

namespace pagedcore::cpu {
namespace {

using Byte = unsigned char;
constexpr int kLanes = Lanes::count, kColumns = 2 * Lanes::count;

// The codes of one half of a quarter, in order.

template <int Zero>
struct Nibbles {
  Lanes::I codes;
  Nibbles(const Byte* quarter, int half) : codes(Lanes::dwords(quarter + half * 4 * kLanes)) {}
  Lanes::F next() {
    const Lanes::F value = Lanes::nibble<Zero>(codes);
    codes = Lanes::right<4>(codes);
    return value;
  }
  static constexpr int kBits = 4, kZero = Zero;
};

/// Four bits as Nibbles, and a fifth.
template <int Zero>
struct Fives {
  Lanes::I low, high;  // the next fifth bit is bit 4
  Fives(const Byte* quarter, int half)
      : low(Lanes::dwords(quarter + half * 4 * kLanes)), high(Lanes::left<4>(Lanes::words(quarter + 8 * kLanes))) {
    if (half == 1) high = Lanes::right<8>(high);
  }
  Lanes::F next() {
    const Lanes::F value = Lanes::joined<4, 5, Zero>(low, high);
    low = Lanes::right<4>(low);
    high = Lanes::right<1>(high);
    return value;
  }
  static constexpr int kBits = 5, kZero = Zero;
};

/// Four bits as Nibbles, and two more.
template <int Zero>
struct Sixes {
  Lanes::I low, high;  // the next two bits are bits 4 and 5
  Sixes(const Byte* quarter, int half) : low(Lanes::dwords(quarter + half * 4 * kLanes)) {
    const Lanes::I pairs = Lanes::dwords(quarter + 8 * kLanes);
    high = half == 0 ? Lanes::left<4>(pairs) : Lanes::right<12>(pairs);
  }
  Lanes::F next() {
    const Lanes::F value = Lanes::joined<4, 6, Zero>(low, high);
    low = Lanes::right<4>(low);
    high = Lanes::right<2>(high);
    return value;
  }
  static constexpr int kBits = 6, kZero = Zero;
};

struct Pairs {
  Lanes::I codes;
  Pairs(const Byte* quarter, int half) : codes(Lanes::dwords(quarter)) {
    if (half == 1) codes = Lanes::right<16>(codes);
  }
  Lanes::F next() {
    const Lanes::F value = Lanes::numbers(Lanes::masked(codes, 3));
    codes = Lanes::right<2>(codes);
    return value;
  }
  static constexpr int kBits = 2, kZero = 0;
};

/// Two bits as Pairs, and a third.
template <int Zero>
struct Threes {
  Lanes::I low, high;  // the next third bit is bit 2
  Threes(const Byte* quarter, int half)
      : low(Lanes::dwords(quarter)), high(Lanes::left<2>(Lanes::words(quarter + 4 * kLanes))) {
    if (half == 0) return;
    low = Lanes::right<16>(low);
    high = Lanes::right<8>(high);
  }
  Lanes::F next() {
    const Lanes::F value = Lanes::joined<2, 3, Zero>(low, high);
    low = Lanes::right<2>(low);
    high = Lanes::right<1>(high);
    return value;
  }
  static constexpr int kBits = 3, kZero = Zero;
};

struct Bytes {
  const Byte* at;
  Bytes(const Byte* quarter, int half) : at(quarter + half * 8 * kLanes) {}
  Lanes::F next() {
    const Lanes::F value = Lanes::numbers(Lanes::signed_bytes(at));
    at += kLanes;
    return value;
  }
  static constexpr int kBits = 8, kZero = 0;
};

/// Four bits that stand for the numbers of e2m1.
struct Looked {
  Lanes::I codes;
  Looked(const Byte* quarter, int half) : codes(Lanes::dwords(quarter + half * 4 * kLanes)) {}
  Lanes::F next() {
    const Lanes::F value = Lanes::looked_up(kNumbers, codes);
    codes = Lanes::right<4>(codes);
    return value;
  }
  static constexpr int kBits = 4;
  static constexpr float kNumbers[16] = {0.0f, 0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                         0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
};

/// Numbers in e4m3 without a NaN. Their bits, moved to where f32 has them, are the number times 2^-120.
struct Floats {
  const Byte* at;
  Floats(const Byte* quarter, int half) : at(quarter + half * 8 * kLanes) {}
  Lanes::F next() {
    const Lanes::I x = Lanes::signed_bytes(at);
    at += kLanes;
    const Lanes::I magnitude = Lanes::left<20>(Lanes::masked(x, 0x7f)), sign = Lanes::masked(x, kSign);
    return Simd::mul(Lanes::bits_as_number(Lanes::either(magnitude, sign)), Simd::set1(0x1p120f));
  }
  static constexpr int kBits = 8, kSign = -0x7fffffff - 1;
};

// Groups of 32 with numbers in f16.

/// d * code
template <class CodesOf>
struct Scaled {
  using Codes = CodesOf;
  static constexpr int kGroups = 1, kHeaderBytes = 0, kScaleBytes = 2, kHalves = 1;
  static constexpr bool kMinimum = false, kZeroPoint = false;
  static Lanes::F scale(const Byte*, const Byte* scales, int v, int) {
    return Lanes::numbers_f16(scales + v * 2 * kLanes);
  }
};
using Q4_0 = Scaled<Nibbles<8>>;
using Q5_0 = Scaled<Fives<16>>;
using Q8_0 = Scaled<Bytes>;

/// d * code + m
template <class CodesOf>
struct Shifted {
  using Codes = CodesOf;
  static constexpr int kGroups = 1, kHeaderBytes = 0, kScaleBytes = 4, kHalves = 1;
  static constexpr bool kMinimum = true, kZeroPoint = false;
  static Lanes::F scale(const Byte*, const Byte* scales, int v, int) {
    return Lanes::numbers_f16(scales + v * 2 * kLanes);
  }
  static Lanes::F minimum(const Byte*, const Byte* scales, int v, int) {
    return Lanes::numbers_f16(scales + (2 + v) * 2 * kLanes);
  }
};
using Q4_1 = Shifted<Nibbles<0>>;
using Q5_1 = Shifted<Fives<0>>;

// Super-blocks of eight groups: d, or d and dmin, in f16, and factors of a byte.

inline Lanes::F negative(Lanes::F x) { return Simd::mul(x, Simd::set1(-1.0f)); }

/// d * factor * code - dmin * other factor
template <class CodesOf>
struct SuperShifted {
  using Codes = CodesOf;
  static constexpr int kGroups = 8, kHeaderBytes = 4, kScaleBytes = 2, kHalves = 1;
  static constexpr bool kMinimum = true, kZeroPoint = false;
  static Lanes::F scale(const Byte* header, const Byte* scales, int v, int) {
    return Simd::mul(Lanes::numbers_f16(header + v * 2 * kLanes), Lanes::numbers(Lanes::bytes(scales + v * kLanes)));
  }
  static Lanes::F minimum(const Byte* header, const Byte* scales, int v, int) {
    const Lanes::F dmin = Lanes::numbers_f16(header + (2 + v) * 2 * kLanes);
    return Simd::mul(negative(dmin), Lanes::numbers(Lanes::bytes(scales + (2 + v) * kLanes)));
  }
};
using Q4_K = SuperShifted<Nibbles<0>>;
using Q5_K = SuperShifted<Fives<0>>;

/// d * factor * code, a signed factor for each half of a group
template <class CodesOf>
struct SuperScaled {
  using Codes = CodesOf;
  static constexpr int kGroups = 8, kHeaderBytes = 2, kScaleBytes = 2, kHalves = 2;
  static constexpr bool kMinimum = false, kZeroPoint = false;
  static Lanes::F scale(const Byte* header, const Byte* scales, int v, int half) {
    return Simd::mul(Lanes::numbers_f16(header + v * 2 * kLanes),
                     Lanes::numbers(Lanes::signed_bytes(scales + (2 * half + v) * kLanes)));
  }
};
using Q3_K = SuperScaled<Threes<4>>;
using Q6_K = SuperScaled<Sixes<32>>;

/// As SuperShifted, for each half of a group a byte: the scale's factor in its low, the minimum's in its high bits
struct Q2_K {
  using Codes = Pairs;
  static constexpr int kGroups = 8, kHeaderBytes = 4, kScaleBytes = 2, kHalves = 2;
  static constexpr bool kMinimum = true, kZeroPoint = false;
  static Lanes::F scale(const Byte* header, const Byte* scales, int v, int half) {
    const Lanes::I both = Lanes::bytes(scales + (2 * half + v) * kLanes);
    return Simd::mul(Lanes::numbers_f16(header + v * 2 * kLanes), Lanes::numbers(Lanes::masked(both, 15)));
  }
  static Lanes::F minimum(const Byte* header, const Byte* scales, int v, int half) {
    const Lanes::I both = Lanes::bytes(scales + (2 * half + v) * kLanes);
    const Lanes::F dmin = Lanes::numbers_f16(header + (2 + v) * 2 * kLanes);
    return Simd::mul(negative(dmin), Lanes::numbers(Lanes::right<4>(both)));
  }
};

/// 2^(exponent - 127) * number
struct Mxfp4 {
  using Codes = Looked;
  static constexpr int kGroups = 1, kHeaderBytes = 0, kScaleBytes = 1, kHalves = 1;
  static constexpr bool kMinimum = false, kZeroPoint = false;
  static Lanes::F scale(const Byte*, const Byte* scales, int v, int) { return Lanes::powers(scales + v * kLanes); }
};

// Groups of quantized checkpoints: `Groups` of 32 share a scale, the halves of an f32, and a zero in f16.

inline Lanes::F scale_in_f32(const Byte* header, int v) {
  const Lanes::I low = Lanes::words(header + v * 2 * kLanes), high = Lanes::words(header + (2 + v) * 2 * kLanes);
  return Lanes::bits_as_number(Lanes::either(low, Lanes::left<16>(high)));
}

/// scale * (code - zero)
template <class CodesOf, int Groups>
struct Centred {
  using Codes = CodesOf;
  static constexpr int kGroups = Groups, kHeaderBytes = 6, kScaleBytes = 0, kHalves = 1;
  static constexpr bool kMinimum = true, kZeroPoint = true;
  static Lanes::F scale(const Byte* header, const Byte*, int v, int) { return scale_in_f32(header, v); }
  static Lanes::F zero(const Byte* header, int v) { return Lanes::numbers_f16(header + (4 + v) * 2 * kLanes); }
  static Lanes::F minimum(const Byte* header, const Byte*, int v, int) {
    return Simd::mul(negative(zero(header, v)), scale_in_f32(header, v));
  }
};
using Int4_G32 = Centred<Nibbles<0>, 1>;
using Int4_G128 = Centred<Nibbles<0>, 4>;
using Int8_G128 = Centred<Bytes, 4>;

/// scale * number
struct F8_G128 {
  using Codes = Floats;
  static constexpr int kGroups = 4, kHeaderBytes = 4, kScaleBytes = 0, kHalves = 1;
  static constexpr bool kMinimum = false, kZeroPoint = false;
  static Lanes::F scale(const Byte* header, const Byte*, int v, int) { return scale_in_f32(header, v); }
};

}  // namespace
}  // namespace pagedcore::cpu
