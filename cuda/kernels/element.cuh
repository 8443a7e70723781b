// Pairs of 16-bit elements in a register, as matrix instructions take them, and how 8-bit elements become such pairs.
#pragma once

#include <string.h>

#include "kernels/device.cuh"
#include "kernels/kv_tile.hpp"

namespace pagedcore::cuda {

inline constexpr float kInfinity = __builtin_huge_valf();

template <typename T>
struct Pair;  // Vector: two elements; from: two floats, rounded; kOnes: (1, 1)

template <>
struct Pair<__half> {
  using Vector = __half2;
  static constexpr uint32_t kOnes = 0x3c003c00u;
  __device__ static Vector from(float a, float b) { return __floats2half2_rn(a, b); }
};
template <>
struct Pair<__nv_bfloat16> {
  using Vector = __nv_bfloat162;
  static constexpr uint32_t kOnes = 0x3f803f80u;
  __device__ static Vector from(float a, float b) { return __floats2bfloat162_rn(a, b); }
};

template <typename To, typename From>
__device__ inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(static_cast<void*>(&to), &from, sizeof to);
  return to;
}

template <typename T>
__device__ inline uint32_t pack(float a, float b) {
  return bits_as<uint32_t>(Pair<T>::from(a, b));
}

template <typename T>
__device__ inline uint32_t multiply(uint32_t a, uint32_t b) {
  using Vector = typename Pair<T>::Vector;
  return bits_as<uint32_t>(__hmul2(bits_as<Vector>(a), bits_as<Vector>(b)));
}

/// Bytes 0 and 2 of `bytes` (even), or 1 and 3, as a pair of T. Exact.
template <KvType kKv, typename T>
__device__ uint32_t widen(uint32_t bytes, bool odd);

// e4m3 in the high byte of a half has the exponent field of a number 2^8 larger (2^120 as bf16), subnormals included.
template <>
__device__ inline uint32_t widen<KvType::fp8_e4m3, __half>(uint32_t bytes, bool odd) {
  const uint32_t w = odd ? bytes & 0xff00ff00u : (bytes & 0x00ff00ffu) << 8;
  return multiply<__half>((w & 0x80008000u) | ((w & 0x7f007f00u) >> 1), 0x5c005c00u);
}
template <>
__device__ inline uint32_t widen<KvType::fp8_e4m3, __nv_bfloat16>(uint32_t bytes, bool odd) {
  const uint32_t w = odd ? bytes & 0xff00ff00u : (bytes & 0x00ff00ffu) << 8;
  return multiply<__nv_bfloat16>((w & 0x80008000u) | ((w & 0x7f007f00u) >> 4), 0x7b807b80u);
}
// 1024 + u for an unsigned byte u is the half 0x6400 | u; in f32 it is 2^23.
template <>
__device__ inline uint32_t widen<KvType::int8, __half>(uint32_t bytes, bool odd) {
  const uint32_t u = bytes ^ 0x80808080u;
  const uint32_t w = (odd ? u >> 8 : u) & 0x00ff00ffu;
  return bits_as<uint32_t>(__hsub2(bits_as<__half2>(w | 0x64006400u), bits_as<__half2>(0x64806480u)));
}
template <>
__device__ inline uint32_t widen<KvType::int8, __nv_bfloat16>(uint32_t bytes, bool odd) {
  const uint32_t u = bytes ^ 0x80808080u;
  const uint32_t w = odd ? u >> 8 : u;
  const float low = __uint_as_float(0x4b000000u | (w & 0xffu)) - 8388736.0f;
  const float high = __uint_as_float(0x4b000000u | ((w >> 16) & 0xffu)) - 8388736.0f;
  return __byte_perm(__float_as_uint(low), __float_as_uint(high), 0x7632);
}

}  // namespace pagedcore::cuda
