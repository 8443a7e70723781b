// Vectors of sixteen codes. Include after simd_avx512.hpp.
#pragma once

#include <cstdint>

#include "cpu/matmul/simd_avx512.hpp"

namespace pagedcore::cpu {
namespace {

struct Lanes {
  using I = __m512i;
  using F = Simd::F;
  static constexpr int count = Simd::lanes;

  static I dwords(const unsigned char* p) { return _mm512_loadu_si512(p); }
  static I words(const unsigned char* p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)); }
  static I bytes(const unsigned char* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)); }
  static I signed_bytes(const unsigned char* p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)); }
  static F numbers_f16(const unsigned char* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
  template <int N>
  static I right(I x) {
    return _mm512_srli_epi32(x, N);
  }
  template <int N>
  static I left(I x) {
    return _mm512_slli_epi32(x, N);
  }
  static I masked(I x, int mask) { return _mm512_and_si512(x, _mm512_set1_epi32(mask)); }
  static I either(I a, I b) { return _mm512_or_si512(a, b); }
  static F bits_as_number(I x) { return _mm512_castsi512_ps(x); }
  /// 2^(byte - 127), of 255 infinity
  static F powers(const unsigned char* p) {
    return _mm512_castsi512_ps(_mm512_max_epi32(left<23>(bytes(p)), _mm512_set1_epi32(1 << 22)));
  }
  static F numbers(I x) { return _mm512_cvtepi32_ps(x); }
  /// The number that the low four bits stand for.
  static F looked_up(const float (&table)[16], I x) { return _mm512_permutexvar_ps(x, _mm512_loadu_ps(table)); }
  /// The low four bits less `Zero`: a lookup costs less than mask, subtraction and conversion.
  template <int Zero>
  static F nibble(I x) {
    return _mm512_permutexvar_ps(
        x, _mm512_setr_ps(0 - Zero, 1 - Zero, 2 - Zero, 3 - Zero, 4 - Zero, 5 - Zero, 6 - Zero, 7 - Zero, 8 - Zero,
                          9 - Zero, 10 - Zero, 11 - Zero, 12 - Zero, 13 - Zero, 14 - Zero, 15 - Zero));
  }
  /// The number of `Bits` bits less `Zero`: the first `Low` are those of `low`, the others those of `high`.
  template <int Low, int Bits, int Zero>
  static F joined(I low, I high) {
    const I low_bits = _mm512_set1_epi32((1 << Low) - 1);
    const I code = _mm512_ternarylogic_epi32(low_bits, low, high, 0xca);  // a ? b : c; with bits of others above
    if constexpr (Bits <= 5) {
      const I first = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);  // folded: a constant
      const auto number = [](I i) {
        return _mm512_cvtepi32_ps(_mm512_sub_epi32(masked(i, (1 << Bits) - 1), _mm512_set1_epi32(Zero)));
      };
      if constexpr (Bits < 5) return _mm512_permutexvar_ps(code, number(first));
      return _mm512_permutex2var_ps(number(first), code, number(_mm512_add_epi32(first, _mm512_set1_epi32(16))));
    } else {
      const I bits = _mm512_set1_epi32((1 << Bits) - 1), exponent = _mm512_set1_epi32(0x4b000000);  // 2^23 + code
      const I number = _mm512_ternarylogic_epi32(code, bits, exponent, 0xea);                       // a & b | c
      return _mm512_sub_ps(_mm512_castsi512_ps(number), _mm512_set1_ps(float{1 << 23} + Zero));
    }
  }
  /// Each of the first half of the lanes twice; of the second half.
  static F twice_low(F x) {
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), x);
  }
  static F twice_high(F x) {
    return _mm512_permutexvar_ps(_mm512_setr_epi32(8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15), x);
  }
#if defined(__AVX512BF16__)
  static bool finite(F) { return true; }  // there is nothing to gain
  /// As bf16, `low` first. Subnormal numbers become 0, as the dot products of bf16 take them.
  template <bool Finite>
  static void store_bf16(unsigned char* p, F low, F high) {
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
#else
  static bool finite(F x) { return _mm512_cmp_ps_mask(_mm512_sub_ps(x, x), _mm512_setzero_ps(), _CMP_EQ_OQ) == 0xffff; }
  /// As bf16, `low` first. Finite: neither is infinite or NaN.
  template <bool Finite>
  static void store_bf16(unsigned char* p, F low, F high) {
    alignas(64) static constexpr std::uint16_t kUpper[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                             23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                             45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    _mm512_storeu_si512(
        p, _mm512_permutex2var_epi16(rounded<Finite>(low), _mm512_load_si512(kUpper), rounded<Finite>(high)));
  }

 private:
  /// bf16 in the upper halves.
  template <bool Finite>
  static I rounded(F x) {
    const I bits = _mm512_castps_si512(x);
    const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const I up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    if constexpr (Finite) return up;
    return _mm512_mask_or_epi32(up, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), bits, _mm512_set1_epi32(0x400000));
  }
#endif
};

}  // namespace
}  // namespace pagedcore::cpu
