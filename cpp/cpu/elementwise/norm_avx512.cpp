// Normalisation with AVX-512.

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

#include "cpu/elementwise/norm_kernels.hpp"

namespace pagedcore::cpu {
namespace {

struct Vec {
  static constexpr int kWidth = 16;
  __m512 v;

  static Vec zero() { return {_mm512_setzero_ps()}; }
  static Vec set(float x) { return {_mm512_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load_part(const float* p, int n) { return {_mm512_maskz_loadu_ps(mask(n), p)}; }
  static Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  static Vec sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  static Vec mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  static Vec mul_add(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static void to_array(Vec a, float* out) { _mm512_storeu_ps(out, a.v); }

  static void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
  static void store(uint16_t* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(a)); }
  static void store_part(float* p, Vec a, int n) { _mm512_mask_storeu_ps(p, mask(n), a.v); }
  static void store_part(uint16_t* p, Vec a, int n) { _mm256_mask_storeu_epi16(p, mask(n), to_bf16(a)); }

 private:
  static __mmask16 mask(int n) { return static_cast<__mmask16>((1u << n) - 1u); }

  /// To nearest, ties to even; a NaN stays one.
  static __m256i to_bf16(Vec a) {
    const __m512i bits = _mm512_castps_si512(a.v);
    const __m512i high = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x0040)));
  }
};

}  // namespace
}  // namespace pagedcore::cpu

#include "cpu/elementwise/norm_body.hpp"

namespace pagedcore::cpu {
const NormKernels norm_kernels_avx512 = kNormKernels;
}
