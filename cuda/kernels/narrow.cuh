// The two 16-bit types, alone and in pairs that fill a register.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

#include "kernels/device.cuh"

namespace pagedcore::cuda {

template <class T>
struct Narrow;

template <>
struct Narrow<__half> {
  using Pair = __half2;
  static constexpr float kMagic = 1024.0f;                  // from here to 2048 the spacing is 1:
  static constexpr std::uint32_t kMagicPair = 0x64006400u;  // its low ten bits count
  static __device__ float to_float(__half x) { return __half2float(x); }
  static __device__ __half from_float(float x) { return __float2half_rn(x); }
  static __device__ Pair pair(float x, float y) { return __floats2half2_rn(x, y); }
};

template <>
struct Narrow<__nv_bfloat16> {
  using Pair = __nv_bfloat162;
  static constexpr float kMagic = 128.0f;
  static constexpr std::uint32_t kMagicPair = 0x43004300u;
  static __device__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
  static __device__ __nv_bfloat16 from_float(float x) { return __float2bfloat16_rn(x); }
  static __device__ Pair pair(float x, float y) { return __floats2bfloat162_rn(x, y); }
};

/// The same bits as another type.
template <class To, class From>
__device__ inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(static_cast<void*>(&to), static_cast<const void*>(&from), sizeof to);
  return to;
}

template <class T>
__device__ inline std::uint32_t pack_pair(float x, float y) {
  return bit_cast<std::uint32_t>(Narrow<T>::pair(x, y));
}

}  // namespace pagedcore::cuda
