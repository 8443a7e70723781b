// Four consecutive elements of a row by one access, where its address allows it.
#pragma once

#include "kernels/narrow.cuh"

namespace pagedcore::cuda {

template <class T>
__device__ inline T from_f32(float x) {
  if constexpr (sizeof(T) == sizeof(float))
    return x;
  else
    return Narrow<T>::from_float(x);
}

/// Four consecutive floats, of which `count` exist; the others are `fill`. One load where the address allows it: which
/// values go together does not depend on the alignment.
__device__ inline float4 load_four(const float* at, int count, float fill) {
  if (count >= 4 && reinterpret_cast<std::uintptr_t>(at) % sizeof(float4) == 0)
    return *reinterpret_cast<const float4*>(at);
  return make_float4(at[0], count > 1 ? at[1] : fill, count > 2 ? at[2] : fill, count > 3 ? at[3] : fill);
}

/// Likewise stored, as T.
template <class T>
__device__ inline void store_four(T* at, int count, float4 v) {
  if (count >= 4 && reinterpret_cast<std::uintptr_t>(at) % (4 * sizeof(T)) == 0) {
    if constexpr (sizeof(T) == sizeof(float))
      *reinterpret_cast<float4*>(at) = v;
    else
      *reinterpret_cast<uint2*>(at) = make_uint2(pack_pair<T>(v.x, v.y), pack_pair<T>(v.z, v.w));
    return;
  }
  at[0] = from_f32<T>(v.x);
  if (count > 1) at[1] = from_f32<T>(v.y);
  if (count > 2) at[2] = from_f32<T>(v.z);
  if (count > 3) at[3] = from_f32<T>(v.w);
}

}  // namespace pagedcore::cuda
