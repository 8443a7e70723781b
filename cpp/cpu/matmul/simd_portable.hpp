// Vectors of four floats in the compilers' portable notation: SSE2 on x86-64, NEON on arm64. Include in one source
// only.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pagedcore::cpu {
namespace {

struct Simd {
  static constexpr int lanes = 4;
  static constexpr int tile_rows = 6;
  typedef float F __attribute__((vector_size(16)));
  typedef std::int32_t I __attribute__((vector_size(16)));
  typedef std::uint32_t U __attribute__((vector_size(16)));

  static F zero() { return F{}; }
  static F set1(float x) { return F{x, x, x, x}; }
  static F load(const float* p) {
    F v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static F load_first(const float* p, int count) {
    F v{};
    for (int i = 0; i < count; ++i) v[i] = p[i];
    return v;
  }
  static void store(float* p, F v) { std::memcpy(p, &v, sizeof v); }
  static void store_first(float* p, F v, int count) {
    for (int i = 0; i < count; ++i) p[i] = v[i];
  }
  static F add(F a, F b) { return a + b; }
  static F sub(F a, F b) { return a - b; }
  static F mul(F a, F b) { return a * b; }
  static F div(F a, F b) { return a / b; }
#if defined(__aarch64__)
  static F fma(F a, F b, F c) { return (F)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
  static F fma(F a, F b, F c) { return a * b + c; }
#endif
  // As on x86: the second operand where either is NaN.
  static F max(F a, F b) { return (F)select(a > b, (U)a, (U)b); }
  static F min(F a, F b) { return (F)select(a < b, (U)a, (U)b); }
  static F abs(F a) { return (F)((U)a & 0x7fffffffu); }
  static F where_negative(F x, F yes, F no) { return (F)select((I)x < 0, (U)yes, (U)no); }
  /// To the nearest integer, for |x| < 2^22.
  static F round(F a) { return (a + 12582912.0f) - 12582912.0f; }
  /// x 2^n for integral n in [-252, 254]; in two factors, since n may reach past the exponents of f32.
  static F scale(F x, F n) {
    const F half = round(mul(n, set1(0.5f)));
    return mul(mul(x, pow2(half)), pow2(sub(n, half)));
  }

  /// Two consecutive k of every column lie side by side: the first in the low halves.
  static F widen_low(const void* p) { return (F)(load_bits(p) << 16); }
  static F widen_high(const void* p) { return (F)(load_bits(p) & 0xffff0000u); }
  /// Round to nearest even; NaN stays NaN.
  static void store_bf16(std::uint16_t* p, F v, int count) {
    const U bits = (U)v;
    const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const U quiet = (bits >> 16) | 0x40u;
    const U result = select(v != v, quiet, rounded);
    for (int i = 0; i < count; ++i) p[i] = static_cast<std::uint16_t>(result[i]);
  }

 private:
  /// 2^x for integral x in [-126, 127].
  static F pow2(F x) { return (F)((__builtin_convertvector(x, I) + 127) << 23); }
  static U select(I mask, U yes, U no) { return ((U)mask & yes) | (~(U)mask & no); }
  static U load_bits(const void* p) {
    U v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
};

}  // namespace
}  // namespace pagedcore::cpu
