// Vectors of eight floats. Include in sources compiled for AVX2 and FMA only.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace pagedcore::cpu {
namespace {

struct Simd {
  static constexpr int lanes = 8;
  static constexpr int tile_rows = 6;  // 12 of 16 registers are accumulators
  using F = __m256;

  static F zero() { return _mm256_setzero_ps(); }
  static F set1(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load_first(const float* p, int count) { return _mm256_maskload_ps(p, first(count)); }
  static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static void store_first(float* p, F v, int count) { _mm256_maskstore_ps(p, first(count), v); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  // The second operand where either is NaN.
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
  static F where_negative(F x, F yes, F no) { return _mm256_blendv_ps(no, yes, x); }
  static F round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  /// x 2^n for integral n in [-252, 254]; in two factors, since n may reach past the exponents of f32.
  static F scale(F x, F n) {
    const F half = round(mul(n, set1(0.5f)));
    return mul(mul(x, pow2(half)), pow2(sub(n, half)));
  }

  /// Two consecutive k of every column lie side by side: the first in the low halves.
  static F widen_low(const void* p) { return _mm256_castsi256_ps(_mm256_slli_epi32(load_bits(p), 16)); }
  static F widen_high(const void* p) {
    return _mm256_castsi256_ps(_mm256_and_si256(load_bits(p), _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  /// Round to nearest even; NaN stays NaN.
  static void store_bf16(std::uint16_t* p, F v, int count) {
    const __m256i bits = _mm256_castps_si256(v), high = _mm256_srli_epi32(bits, 16);
    const __m256i bias = _mm256_add_epi32(_mm256_set1_epi32(0x7fff), _mm256_and_si256(high, _mm256_set1_epi32(1)));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
    const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i result = _mm256_blendv_epi8(rounded, quiet, nan);
    const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256(result, 1));
    if (count == lanes) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
    } else {
      alignas(16) std::uint16_t all[lanes];
      _mm_store_si128(reinterpret_cast<__m128i*>(all), packed);
      for (int i = 0; i < count; ++i) p[i] = all[i];
    }
  }

 private:
  /// 2^x for integral x in [-126, 127].
  static F pow2(F x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127)), 23));
  }
  static __m256i first(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static __m256i load_bits(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
};

}  // namespace
}  // namespace pagedcore::cpu
