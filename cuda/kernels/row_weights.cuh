// A row's weights and their block sums, bit for bit those of cpp/sampling/row_kernels: no operation is fused, and a
// block of 1024 tokens is summed in 32 lanes of f32 that are then added in double.
#pragma once

#include <cstdint>

#include "kernels/reduce.cuh"

namespace pagedcore::cuda {

inline constexpr int kSumBlock = 1024;

/// e^x for x <= 0 to 1e-7 relative; below the smallest normal float, 0. The constants are those of lanes.inl.
__device__ inline float exp_exactly_as_host(float argument) {
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23
  constexpr float kLowest = -87.33654f;
  const float x = argument > kLowest ? argument : kLowest;
  const float shifted = __fadd_rn(__fmul_rn(x, 1.44269504f), kRounder);
  const float n = __fadd_rn(shifted, -kRounder);
  const float r = __fadd_rn(__fadd_rn(x, -__fmul_rn(n, 0.693359375f)), -__fmul_rn(n, -2.12194440e-4f));
  float q = 0.001381446490995586f;
  q = __fadd_rn(__fmul_rn(q, r), 0.008368780836462975f);
  q = __fadd_rn(__fmul_rn(q, r), 0.04166839271783829f);
  q = __fadd_rn(__fmul_rn(q, r), 0.1666651964187622f);
  q = __fadd_rn(__fmul_rn(q, r), 0.4999999403953552f);
  const float mantissa = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(q, r), r), r), 1.0f);
  const std::uint32_t power = (__float_as_uint(shifted) - 0x4B400000u + 127u) << 23;
  return argument >= kLowest ? __fmul_rn(mantissa, __uint_as_float(power)) : 0.0f;
}

struct Row {
  const float* logits;
  int size;
  float max;
  float scale;

  __device__ float depth(float logit) const { return __fmul_rn(__fadd_rn(logit, -max), scale); }
  __device__ float weight(float logit) const { return exp_exactly_as_host(depth(logit)); }
  __device__ int blocks() const { return (size + kSumBlock - 1) / kSumBlock; }
};

/// By one warp, in every lane: the sum of the weights of tokens [1024 block, 1024 block + 1024).
__device__ inline double block_weight(const Row& row, int block) {
  const int lane = lane_index(), last = min(row.size, (block + 1) * kSumBlock);
  float sum = 0.0f;
  int i = block * kSumBlock;
  for (; i + 32 <= last; i += 32) sum = __fadd_rn(sum, row.weight(row.logits[i + lane]));
  if (lane < 16) {  // the host adds what is left to its first sixteen lanes
    if (i + lane < last) sum = __fadd_rn(sum, row.weight(row.logits[i + lane]));
    if (i + 16 + lane < last) sum = __fadd_rn(sum, row.weight(row.logits[i + 16 + lane]));
  }
  const double pair = static_cast<double>(sum) + static_cast<double>(__shfl_xor_sync(kAllLanes, sum, 16));
  double total = 0.0;
#pragma unroll
  for (int from = 0; from < 16; ++from) total += __shfl_sync(kAllLanes, pair, from);
  return total;
}

/// A logit's place in the order of floats, as an unsigned number; -0 and +0 have the same.
__device__ inline std::uint32_t order_key(float logit) {
  const std::uint32_t bits = __float_as_uint(__fadd_rn(logit, 0.0f));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
inline constexpr std::uint32_t kKeyOfMinusInfinity = 0x007FFFFFu;
inline constexpr std::uint32_t kKeyOfInfinity = 0xFF800000u;

__device__ inline float logit_of_key(std::uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
}

}  // namespace pagedcore::cuda
