// Vectors of bytes: four consecutive k of each of eight columns. Include after lanes_avx2.hpp.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/matmul/native/lanes_avx2.hpp"

namespace pagedcore::cpu {
namespace {

struct Quads {
  using V = __m256i;
  static constexpr int kBytes = 32;
  static constexpr int kTileRows = 2;  // 4 sums and 4 products of integers, of 16 registers

  static V load(const unsigned char* p) { return _mm256_loadu_si256((const __m256i*)p); }
  static void store(unsigned char* p, V x) { _mm256_storeu_si256((__m256i*)p, x); }
  /// Bits of each byte; the neighbour's are to be masked.
  template <int N>
  static V right(V x) {
    return _mm256_srli_epi16(x, N);
  }
  template <int N>
  static V left(V x) {
    return _mm256_slli_epi16(x, N);
  }
  static V masked(V x, int mask) { return _mm256_and_si256(x, _mm256_set1_epi8(static_cast<char>(mask))); }
  static V either(V a, V b) { return _mm256_or_si256(a, b); }
  static V flipped(V x, int mask) { return _mm256_xor_si256(x, _mm256_set1_epi8(static_cast<char>(mask))); }

  static V zero() { return _mm256_setzero_si256(); }
  static V all(std::int32_t x) { return _mm256_set1_epi32(x); }
  static V quad(const std::int8_t* p) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
  }
  static V less(V a, V b) { return _mm256_sub_epi32(a, b); }
  template <int N>
  static V times_power(V x) {
    return _mm256_slli_epi32(x, N);
  }
  static Simd::F numbers(V x) { return _mm256_cvtepi32_ps(x); }
  static Simd::F fma(Simd::F a, Simd::F b, Simd::F c) { return Simd::fma(a, b, c); }

#if defined(__AVXVNNI__)
  static constexpr bool kSigned = false;  // codes of eight bits are taken as code + 128
  /// sum + the four products of each column.
  template <bool>
  static V dot(V sum, V codes, V input) {
    return _mm256_dpbusd_avx_epi32(sum, codes, input);
  }
#else
  static constexpr bool kSigned = true;
  /// The two products of 16 bits meet in 16: codes below 128 leave room. Of signed ones the magnitudes go in, at most
  /// 128, and the inputs, of which none is -128, take the signs.
  template <bool Signed>
  static V dot(V sum, V codes, V input) {
    if constexpr (Signed) {
      input = _mm256_sign_epi8(input, codes);
      codes = _mm256_abs_epi8(codes);
    }
    const V pairs = _mm256_maddubs_epi16(codes, input);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
#endif
};

}  // namespace
}  // namespace pagedcore::cpu
