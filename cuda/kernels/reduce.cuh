// Sums over the lanes of a warp and the warps of a block, in one fixed order.
#pragma once

#include "kernels/device.cuh"

namespace pagedcore::cuda {

/// In every lane the sum over all 32, added as a tree.
template <class T>
__device__ inline T warp_sum(T x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

/// In every thread the sum over a block of 32 kWarps: warp by warp. `per_warp` is shared memory that nothing else uses
/// until the next barrier after this call.
template <int kWarps, class T>
__device__ inline T block_sum(T x, T (&per_warp)[kWarps]) {
  x = warp_sum(x);
  const unsigned own = warp_index();
  if (lane_index() == 0) per_warp[own] = x;
  __syncthreads();
  T sum = per_warp[0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) sum += per_warp[warp];
  return sum;
}

}  // namespace pagedcore::cuda
