// Widens groups of a native panel: the loops around the formats of types.hpp. Include after those, in per-ISA sources.
#pragma once

#include "cpu/matmul/native/types.hpp"
#include "cpu/matmul/native/widen_table.hpp"

namespace pagedcore::cpu {
namespace {

constexpr std::int64_t kWidenAhead = 2048;  // bytes of codes that are asked for before their use

/// How a dense panel takes the numbers of quarters 2 v (a) and 2 v + 1 (b), see format.hpp. Rounding costs less where
/// all of them are `Finite`.
struct ToF32 {
  static Lanes::F first(Lanes::F columns) { return columns; }
  static Lanes::F second(Lanes::F columns) { return columns; }
  static bool finite(Lanes::F) { return true; }
  template <bool Finite>
  static void store(Byte* out, int v, int t, Lanes::F a, Lanes::F b) {
    float* to = reinterpret_cast<float*>(out) + 2 * t * kColumns + v * kLanes;
    Simd::store(to, a);
    Simd::store(to + kColumns, b);
  }
  static constexpr std::int64_t kGroupBytes = 32 * kColumns * 4;
};

struct ToBf16 {
  static Lanes::F first(Lanes::F columns) { return Lanes::twice_low(columns); }
  static Lanes::F second(Lanes::F columns) { return Lanes::twice_high(columns); }
  static bool finite(Lanes::F x) { return Lanes::finite(x); }
  template <bool Finite>
  static void store(Byte* out, int v, int t, Lanes::F a, Lanes::F b) {
    Lanes::store_bf16<Finite>(out + t * kColumns * 4 + v * kLanes * 4, a, b);
  }
  static constexpr std::int64_t kGroupBytes = 32 * kColumns * 2;
};

/// The scale and minimum of the lanes of two quarters.
template <class Type, class Out>
struct Scales {
  Lanes::F scale[2], minimum[2];
  bool finite;
  Scales(const Byte* header, const Byte* scales, int v, int half) {
    const Lanes::F s = Type::scale(header, scales, v, half);
    scale[0] = Out::first(s);
    scale[1] = Out::second(s);
    finite = Out::finite(s);
    if constexpr (Type::kMinimum) {
      const Lanes::F m = of_codes(header, scales, v, half);
      minimum[0] = Out::first(m);
      minimum[1] = Out::second(m);
      finite = finite && Out::finite(m);
    }
  }
  /// What is added to numbers or, exact for any scale, taken from codes.
  static Lanes::F of_codes(const Byte* header, const Byte* scales, int v, int half) {
    if constexpr (Type::kZeroPoint)
      return Type::zero(header, v);
    else
      return Type::minimum(header, scales, v, half);
  }
  Lanes::F of(Lanes::F code, int e) const {
    if constexpr (Type::kZeroPoint) return Simd::mul(Simd::sub(code, minimum[e]), scale[e]);
    if constexpr (Type::kMinimum) return Simd::fma(code, scale[e], minimum[e]);
    return Simd::mul(code, scale[e]);
  }
};

/// Codes 8 * half to 8 * half + 7 of quarters 2 v and 2 v + 1.
template <class Type, class Out, bool Finite>
inline void widen_half(const Scales<Type, Out>& numbers, const Byte* codes, int v, int half, Byte* out) {
  constexpr int kQuarter = 2 * Type::Codes::kBits * kLanes;
  typename Type::Codes a(codes + 2 * v * kQuarter, half), b(codes + (2 * v + 1) * kQuarter, half);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const Lanes::F first = numbers.of(a.next(), 0), second = numbers.of(b.next(), 1);
    Out::template store<Finite>(out, v, 8 * half + i, first, second);
  }
}

template <class Type, class Out>
void widen_group(const Byte* header, const Byte* scales, Byte* out) {
  const Byte* codes = scales + Type::kScaleBytes * kColumns;
  for (int v = 0; v < 2; ++v) {
    Scales<Type, Out> numbers(header, scales, v, 0);
    for (int half = 0; half < 2; ++half) {
      if (Type::kHalves == 2 && half == 1) numbers = Scales<Type, Out>(header, scales, v, 1);
      if (numbers.finite)
        widen_half<Type, Out, true>(numbers, codes, v, half, out);
      else
        widen_half<Type, Out, false>(numbers, codes, v, half, out);
    }
  }
}

template <class Type, class Out>
void widen(const unsigned char* panel, std::int64_t first, std::int64_t groups, void* to) {
  constexpr std::int64_t kGroupBytes = (Type::kScaleBytes + 4 * Type::Codes::kBits) * kColumns;
  constexpr std::int64_t kHeader = Type::kHeaderBytes * kColumns, kBlock = kHeader + Type::kGroups * kGroupBytes;
  Byte* out = static_cast<Byte*>(to);
  for (std::int64_t g = first; g < first + groups; ++g, out += Out::kGroupBytes) {
    const Byte* header = panel + g / Type::kGroups * kBlock;
    const Byte* scales = header + kHeader + g % Type::kGroups * kGroupBytes;
    for (std::int64_t line = 0; line < kGroupBytes; line += 64) __builtin_prefetch(scales + kWidenAhead + line, 0, 2);
    widen_group<Type, Out>(header, scales, out);
  }
}

template <class Out>
constexpr WidenTable widen_table() {
  return {widen<Q4_0, Out>,  widen<Q4_1, Out>,     widen<Q5_0, Out>,      widen<Q5_1, Out>,      widen<Q8_0, Out>,
          widen<Q2_K, Out>,  widen<Q3_K, Out>,     widen<Q4_K, Out>,      widen<Q5_K, Out>,      widen<Q6_K, Out>,
          widen<Mxfp4, Out>, widen<Int4_G32, Out>, widen<Int4_G128, Out>, widen<Int8_G128, Out>, widen<F8_G128, Out>};
}

}  // namespace
}  // namespace pagedcore::cpu
