// Vectors of bytes: four consecutive k of each of sixteen columns. Include after lanes_avx512.hpp.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/matmul/native/lanes_avx512.hpp"

namespace pagedcore::cpu {
namespace {

struct Quads {
  using V = __m512i;
  static constexpr int kBytes = 64;
  static constexpr int kTileRows = 6;  // 12 sums and 12 products of integers, of 32 registers

  static V load(const unsigned char* p) { return _mm512_loadu_si512(p); }
  static void store(unsigned char* p, V x) { _mm512_storeu_si512(p, x); }
  /// Bits of each byte; the neighbour's are to be masked.
  template <int N>
  static V right(V x) {
    return _mm512_srli_epi16(x, N);
  }
  template <int N>
  static V left(V x) {
    return _mm512_slli_epi16(x, N);
  }
  static V masked(V x, int mask) { return _mm512_and_si512(x, _mm512_set1_epi8(static_cast<char>(mask))); }
  static V either(V a, V b) { return _mm512_or_si512(a, b); }
  static V flipped(V x, int mask) { return _mm512_xor_si512(x, _mm512_set1_epi8(static_cast<char>(mask))); }

  static V zero() { return _mm512_setzero_si512(); }
  static V all(std::int32_t x) { return _mm512_set1_epi32(x); }
  static V quad(const std::int8_t* p) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static V less(V a, V b) { return _mm512_sub_epi32(a, b); }
  template <int N>
  static V times_power(V x) {
    return _mm512_slli_epi32(x, N);
  }
  static Simd::F numbers(V x) { return _mm512_cvtepi32_ps(x); }
  static Simd::F fma(Simd::F a, Simd::F b, Simd::F c) { return Simd::fma(a, b, c); }

#if defined(__AVX512VNNI__)
  static constexpr bool kSigned = false;  // codes of eight bits are taken as code + 128
  /// sum + the four products of each column.
  template <bool>
  static V dot(V sum, V codes, V input) {
    return _mm512_dpbusd_epi32(sum, codes, input);
  }
#else
  static constexpr bool kSigned = true;
  /// The two products of 16 bits meet in 16: codes below 128 leave room. Of signed ones the magnitudes go in, at most
  /// 128, and the inputs take the signs.
  template <bool Signed>
  static V dot(V sum, V codes, V input) {
    if constexpr (Signed) {
      input = _mm512_mask_sub_epi8(input, _mm512_movepi8_mask(codes), _mm512_setzero_si512(), input);
      codes = _mm512_abs_epi8(codes);
    }
    const V pairs = _mm512_maddubs_epi16(codes, input);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
#endif
};

}  // namespace
}  // namespace pagedcore::cpu
