// Normalisation with AVX2 and FMA.
#include <immintrin.h>

#include "cpu/elementwise/norm_kernels.hpp"

namespace pagedcore::cpu {
namespace {

struct Vec {
  static constexpr int kWidth = 8;
  __m256 v;

  static Vec zero() { return {_mm256_setzero_ps()}; }
  static Vec set(float x) { return {_mm256_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec load_part(const float* p, int n) { return {_mm256_maskload_ps(p, mask(n))}; }
  static Vec add(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
  static Vec sub(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
  static Vec mul(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
  static Vec mul_add(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  static void to_array(Vec a, float* out) { _mm256_storeu_ps(out, a.v); }

  static void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
  static void store(uint16_t* p, Vec a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_bf16(a)); }
  static void store_part(float* p, Vec a, int n) { _mm256_maskstore_ps(p, mask(n), a.v); }
  static void store_part(uint16_t* p, Vec a, int n) {
    uint16_t all[kWidth];
    store(all, a);
    for (int i = 0; i < n; ++i) p[i] = all[i];
  }

 private:
  static __m256i mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }

  /// To nearest, ties to even; a NaN stays one.
  static __m128i to_bf16(Vec a) {
    const __m256i bits = _mm256_castps_si256(a.v);
    const __m256i high = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
    const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x0040));
    const __m256i r = _mm256_blendv_epi8(rounded, quiet, nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
  }
};

}  // namespace
}  // namespace pagedcore::cpu

#include "cpu/elementwise/norm_body.hpp"

namespace pagedcore::cpu {
const NormKernels norm_kernels_avx2 = kNormKernels;
}
