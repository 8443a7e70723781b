// Vectors of eight codes. Include after simd_avx2.hpp.
#pragma once

#include <cstdint>

#include "cpu/matmul/simd_avx2.hpp"

namespace pagedcore::cpu {
namespace {

struct Lanes {
  using I = __m256i;
  using F = Simd::F;
  static constexpr int count = Simd::lanes;

  static I dwords(const unsigned char* p) { return _mm256_loadu_si256((const __m256i*)p); }
  static I words(const unsigned char* p) { return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)); }
  static I bytes(const unsigned char* p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)); }
  static I signed_bytes(const unsigned char* p) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)); }
  static F numbers_f16(const unsigned char* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
  template <int N>
  static I right(I x) {
    return _mm256_srli_epi32(x, N);
  }
  template <int N>
  static I left(I x) {
    return _mm256_slli_epi32(x, N);
  }
  static I masked(I x, int mask) { return _mm256_and_si256(x, _mm256_set1_epi32(mask)); }
  static I either(I a, I b) { return _mm256_or_si256(a, b); }
  static F bits_as_number(I x) { return _mm256_castsi256_ps(x); }
  /// 2^(byte - 127), of 255 infinity
  static F powers(const unsigned char* p) {
    return _mm256_castsi256_ps(_mm256_max_epi32(left<23>(bytes(p)), _mm256_set1_epi32(1 << 22)));
  }
  static F numbers(I x) { return _mm256_cvtepi32_ps(x); }
  /// The number that the low four bits stand for: a lookup takes three of them, the fourth chooses between two.
  static F looked_up(const float (&table)[16], I x) {
    const F low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), x);
    const F high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), x);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(x, 28)));
  }
  /// The low four bits less `Zero`.
  template <int Zero>
  static F nibble(I x) {
    return numbers(_mm256_sub_epi32(masked(x, 15), _mm256_set1_epi32(Zero)));
  }
  /// The number of `Bits` bits less `Zero`: the first `Low` are those of `low`, the others those of `high`.
  template <int Low, int Bits, int Zero>
  static F joined(I low, I high) {
    constexpr int kLow = (1 << Low) - 1, kHigh = (1 << Bits) - 1 - kLow;
    const I code = _mm256_or_si256(masked(low, kLow), masked(high, kHigh));
    return numbers(_mm256_sub_epi32(code, _mm256_set1_epi32(Zero)));
  }
  /// Each of the first half of the lanes twice; of the second half.
  static F twice_low(F x) { return _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)); }
  static F twice_high(F x) { return _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7)); }
  static bool finite(F x) {
    return _mm256_movemask_ps(_mm256_cmp_ps(_mm256_sub_ps(x, x), _mm256_setzero_ps(), _CMP_EQ_OQ)) == 0xff;
  }
  /// As bf16, `low` first. Finite: neither is infinite or NaN.
  template <bool Finite>
  static void store_bf16(unsigned char* p, F low, F high) {
    const I packed = _mm256_packus_epi32(rounded<Finite>(low), rounded<Finite>(high));  // in halves of 128 bits
    _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(packed, 0xd8));
  }

 private:
  /// bf16 in the lower halves.
  template <bool Finite>
  static I rounded(F x) {
    const I bits = _mm256_castps_si256(x), high = _mm256_srli_epi32(bits, 16);
    const I odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const I up = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    if constexpr (Finite) return up;
    const I quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    return _mm256_blendv_epi8(up, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
  }
};

}  // namespace
}  // namespace pagedcore::cpu
