// AVX2 with FMA: sixteen lanes are two registers.
#include <immintrin.h>

#include "cpu/attention/kernel_impl.hpp"

namespace pagedcore::cpu::attention_detail {
namespace {

struct Avx2 {
  struct F {
    __m256 lo, hi;
  };
  static inline F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static inline F set1(float f) { return {_mm256_set1_ps(f), _mm256_set1_ps(f)}; }
  static inline F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static inline void store(float* p, F a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
  }
  static inline F add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static inline F sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  static inline F mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static inline F div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  static inline F max(F a, F b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static inline F fma(F a, F b, F c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
  static inline __m256 keep8(__m256 a, __m256i lane, int first, int last) {
    const __m256i seen = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(first), lane),
                                             _mm256_cmpgt_epi32(_mm256_set1_epi32(last), lane));
    return _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), a, _mm256_castsi256_ps(seen));
  }
  static inline F keep(F a, int first, int last) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return {keep8(a.lo, lane, first, last), keep8(a.hi, lane, first - 8, last - 8)};
  }
  static inline float first(F a) { return _mm256_cvtss_f32(a.lo); }
  static inline float reduce_max(F a) {
    const __m256 m = _mm256_max_ps(a.lo, a.hi);
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
  }
  static inline float reduce_add(F a) {
    const __m256 s = _mm256_add_ps(a.lo, a.hi);
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
  }
  static inline __m256 exp2_8(__m256 x) {
    // The bounds come first: max and min return their second operand when either is NaN.
    const __m256 t = _mm256_min_ps(_mm256_set1_ps(127.0f), _mm256_max_ps(_mm256_set1_ps(-127.0f), x));
    const __m256 n = _mm256_round_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 f = _mm256_sub_ps(t, n);
    __m256 p = _mm256_set1_ps(kExp2Coefficients[0]);
    for (int c = 1; c < 6; ++c) p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kExp2Coefficients[c]));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));  // n = -127: times +0
  }
  static inline F exp2(F a) { return {exp2_8(a.lo), exp2_8(a.hi)}; }
  static inline void widen(const char* p, F& even, F& odd) {
    const __m256i lo = _mm256_loadu_si256((const __m256i*)p), hi = _mm256_loadu_si256((const __m256i*)(p + 32));
    const __m256i high_half = _mm256_set1_epi32((int)0xffff0000);
    even = {_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
    odd = {_mm256_castsi256_ps(_mm256_and_si256(lo, high_half)), _mm256_castsi256_ps(_mm256_and_si256(hi, high_half))};
  }
};

}  // namespace

const AttentionKernels kAvx2Kernels = {
    .f32 = AttentionKernel<F32Steps<Avx2, 4, 4>>::attend,
    .bf16 = AttentionKernel<Bf16Steps<Avx2, 4, 4>>::attend,
    .bf16_dot = nullptr,
    .bf16_tile = nullptr,
    .tile_begin = nullptr,
    .tile_end = nullptr,
    .rotate = rotate_heads,
    .narrow = narrow_to_bf16,
    .widen_f32 = {widen_k_f32, widen_v_f32},
    .widen_bf16 = {widen_k_bf16, widen_v_bf16},
};

}  // namespace pagedcore::cpu::attention_detail
