// bf16 through vdpbf16ps: two dimensions (or two tokens) of sixteen lanes per instruction, accumulated in f32.
#pragma once

#include "cpu/attention/simd_avx512.hpp"

namespace pagedcore::cpu::attention_detail {
namespace {

struct Bf16DotSteps {
  using Simd = Avx512;
  using Operand = __m512i;
  static constexpr int kElements = 2;
  static constexpr int kBroadcastBytes = 4;
  static constexpr int kMaxRows = 6;
  static constexpr int kAccumulators = 24;
  static inline __m512i load(const char* p) { return _mm512_loadu_si512(p); }
  static inline __m512i broadcast(const char* p) {
    int pair;
    __builtin_memcpy(&pair, p, 4);
    return _mm512_set1_epi32(pair);
  }
  static inline __m512 multiply_add(__m512i s, __m512i x, __m512 a) {
    return _mm512_dpbf16_ps(a, (__m512bh)s, (__m512bh)x);
  }
  static inline void store_probabilities(char* p, __m512 e) {
    _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(e));
  }
};

}  // namespace
}  // namespace pagedcore::cpu::attention_detail
