// Vectors of four codes in the compilers' portable notation. Include after simd_portable.hpp.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/matmul/simd_portable.hpp"

namespace pagedcore::cpu {
namespace {

struct Lanes {
  using I = Simd::I;
  using U = Simd::U;
  using F = Simd::F;
  static constexpr int count = Simd::lanes;

  static I dwords(const unsigned char* p) {
    I v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static I words(const unsigned char* p) {
    std::uint16_t v[4];
    std::memcpy(v, p, sizeof v);
    return I{v[0], v[1], v[2], v[3]};
  }
  static I bytes(const unsigned char* p) { return I{p[0], p[1], p[2], p[3]}; }
  static I signed_bytes(const unsigned char* p) {
    std::int8_t v[4];
    std::memcpy(v, p, sizeof v);
    return I{v[0], v[1], v[2], v[3]};
  }
  /// As f16_to_f32() of tensor/float16.hpp.
  static F numbers_f16(const unsigned char* p) {
    constexpr std::int32_t kOneExponent = 1 << 23, kRebias = (127 - 15) * kOneExponent;
    const I bits = words(p), magnitude = (bits & 0x7fff) << 13, sign = (bits & 0x8000) << 16;
    const I normal = magnitude + kRebias, limit = I{} + (kRebias + kOneExponent);
    const I subnormal = (I)((F)(normal + kOneExponent) - (F)limit);
    const I finite = select(magnitude < kOneExponent, subnormal, normal);
    return (F)(sign | select(magnitude >= 31 * kOneExponent, normal + kRebias, finite));
  }
  template <int N>
  static I right(I x) {
    return (I)((U)x >> N);
  }
  template <int N>
  static I left(I x) {
    return (I)((U)x << N);
  }
  static I masked(I x, int mask) { return x & mask; }
  static I either(I a, I b) { return a | b; }
  static F bits_as_number(I x) { return (F)x; }
  /// 2^(byte - 127), of 255 infinity
  static F powers(const unsigned char* p) {
    const I exponents = bytes(p);
    return (F)select(exponents == 0, I{} + (1 << 22), exponents << 23);
  }
  static F numbers(I x) { return __builtin_convertvector(x, F); }
  /// The number that the low four bits stand for.
  static F looked_up(const float (&table)[16], I x) {
    return F{table[x[0] & 15], table[x[1] & 15], table[x[2] & 15], table[x[3] & 15]};
  }
  /// The low four bits less `Zero`.
  template <int Zero>
  static F nibble(I x) {
    return numbers((x & 15) - Zero);
  }
  /// The number of `Bits` bits less `Zero`: the first `Low` are those of `low`, the others those of `high`.
  template <int Low, int Bits, int Zero>
  static F joined(I low, I high) {
    constexpr int kLow = (1 << Low) - 1, kHigh = (1 << Bits) - 1 - kLow;
    return numbers(((low & kLow) | (high & kHigh)) - Zero);
  }
  /// Each of the first half of the lanes twice; of the second half.
  static F twice_low(F x) { return F{x[0], x[0], x[1], x[1]}; }
  static F twice_high(F x) { return F{x[2], x[2], x[3], x[3]}; }
  static bool finite(F x) {
    const I same = (x - x) == F{};
    return (same[0] & same[1] & same[2] & same[3]) != 0;
  }
  /// As bf16, `low` first. Finite: neither is infinite or NaN.
  template <bool Finite>
  static void store_bf16(unsigned char* p, F low, F high) {
    typedef std::uint16_t Words __attribute__((vector_size(16)));
    const Words a = (Words)rounded<Finite>(low), b = (Words)rounded<Finite>(high);
    const Words both = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);  // little-endian
    std::memcpy(p, &both, sizeof both);
  }

 private:
  /// bf16 in the upper halves.
  template <bool Finite>
  static U rounded(F x) {
    const U bits = (U)x, up = bits + 0x7fffu + ((bits >> 16) & 1u);
    if constexpr (Finite) return up;
    return (U)select(x != x, (I)(bits | 0x400000u), (I)up);
  }
  static I select(I mask, I yes, I no) { return (mask & yes) | (~mask & no); }
};

}  // namespace
}  // namespace pagedcore::cpu
