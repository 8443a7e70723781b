// Sixteen lanes in one AVX-512 register; for sources compiled with AVX-512 only.
#pragma once

// GCC 12's intrinsics leave the unused operand of a masked builtin undefined and warn about it (GCC PR 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include "cpu/attention/kernel_impl.hpp"

namespace pagedcore::cpu::attention_detail {
namespace {

struct Avx512 {
  using F = __m512;
  static inline F zero() { return _mm512_setzero_ps(); }
  static inline F set1(float f) { return _mm512_set1_ps(f); }
  static inline F load(const float* p) { return _mm512_loadu_ps(p); }
  static inline void store(float* p, F a) { _mm512_storeu_ps(p, a); }
  static inline F add(F a, F b) { return _mm512_add_ps(a, b); }
  static inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static inline F div(F a, F b) { return _mm512_div_ps(a, b); }
  static inline F max(F a, F b) { return _mm512_max_ps(a, b); }
  static inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static inline unsigned lanes_below(int n) { return n <= 0 ? 0u : n >= kLanes ? 0xffffu : (1u << n) - 1u; }
  static inline F keep(F a, int first, int last) {
    const __mmask16 seen = (__mmask16)(lanes_below(last) & ~lanes_below(first));
    return _mm512_mask_blend_ps(seen, _mm512_set1_ps(-__builtin_inff()), a);
  }
  static inline float first(F a) { return _mm512_cvtss_f32(a); }
  static inline float reduce_max(F a) { return _mm512_reduce_max_ps(a); }
  static inline float reduce_add(F a) { return _mm512_reduce_add_ps(a); }
  static inline F exp2(F x) {
    // The bound comes first: max returns its second operand when either is NaN.
    const F t = _mm512_max_ps(_mm512_set1_ps(-160.0f), x);
    const F n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const F f = _mm512_sub_ps(t, n);
    F p = _mm512_set1_ps(kExp2Coefficients[0]);
    for (int c = 1; c < 6; ++c) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2Coefficients[c]));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
  }
  static inline void widen(const char* p, F& even, F& odd) {
    const __m512i raw = _mm512_loadu_si512(p);
    even = _mm512_castsi512_ps(_mm512_slli_epi32(raw, 16));
    odd = _mm512_castsi512_ps(_mm512_and_si512(raw, _mm512_set1_epi32((int)0xffff0000)));
  }
};

}  // namespace
}  // namespace pagedcore::cpu::attention_detail
