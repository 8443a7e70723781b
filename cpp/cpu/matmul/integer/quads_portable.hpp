// Vectors of bytes: four consecutive k of each of four columns, in the compilers' portable notation. Include after
// lanes_portable.hpp.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/matmul/native/lanes_portable.hpp"

namespace pagedcore::cpu {
namespace {

struct Quads {
  using V = Simd::U;
  typedef std::int32_t I __attribute__((vector_size(16)));
  typedef std::int16_t W __attribute__((vector_size(16)));
  typedef std::uint16_t UW __attribute__((vector_size(16)));
  static constexpr int kBytes = 16;
  static constexpr int kTileRows = 2;
  static constexpr bool kSigned = false;  // codes of eight bits are taken as code + 128

  static V load(const unsigned char* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(unsigned char* p, V x) { std::memcpy(p, &x, sizeof x); }
  /// Bits of each byte; the neighbour's are to be masked.
  template <int N>
  static V right(V x) {
    return (V)((UW)x >> N);
  }
  template <int N>
  static V left(V x) {
    return (V)((UW)x << N);
  }
  static V masked(V x, int mask) { return x & (static_cast<std::uint32_t>(mask) * 0x01010101u); }
  static V either(V a, V b) { return a | b; }
  static V flipped(V x, int mask) { return x ^ (static_cast<std::uint32_t>(mask) * 0x01010101u); }

  static V zero() { return V{}; }
  static V all(std::int32_t x) {
    const auto bits = static_cast<std::uint32_t>(x);
    return V{bits, bits, bits, bits};
  }
  static V quad(const std::int8_t* p) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    return all(four);
  }
  static V less(V a, V b) { return a - b; }
  template <int N>
  static V times_power(V x) {
    return x << N;
  }
  static Simd::F numbers(V x) { return __builtin_convertvector((I)x, Simd::F); }
  /// Rounded once, as the instruction that the other sets have.
  static Simd::F fma(Simd::F a, Simd::F b, Simd::F c) {
#if defined(__aarch64__)
    return Simd::fma(a, b, c);
#else
    return Simd::F{__builtin_fmaf(a[0], b[0], c[0]), __builtin_fmaf(a[1], b[1], c[1]), __builtin_fmaf(a[2], b[2], c[2]),
                   __builtin_fmaf(a[3], b[3], c[3])};
#endif
  }
  /// sum + the four products of each column; a product of a code and an input fits 16 bits.
  template <bool>
  static V dot(V sum, V codes, V input) {
    const W even = (W)(codes & 0x00ff00ffu) * ((W)((UW)input << 8) >> 8);
    const W odd = (W)((UW)codes >> 8) * ((W)input >> 8);
    const I low = ((I)((V)even << 16) >> 16) + ((I)((V)odd << 16) >> 16), high = ((I)even >> 16) + ((I)odd >> 16);
    return sum + (V)(low + high);
  }
};

}  // namespace
}  // namespace pagedcore::cpu
