// Root-mean-square and layer normalisation in f32.
#pragma once

#include "kernels/four.cuh"
#include "kernels/norm.hpp"
#include "kernels/reduce.cuh"

namespace pagedcore::cuda {

inline constexpr int kNormThreads = 256;
inline constexpr int kHeadsPerBlock = 4;

__device__ inline float sum_of_squares(float4 v, float mean) {
  const float x = v.x - mean, y = v.y - mean, z = v.z - mean, w = v.w - mean;
  return x * x + y * y + (z * z + w * w);
}

/// grid: one block per row.
template <class T>
__global__ void __launch_bounds__(kNormThreads) norm_rows(const NormArgs args) {
  constexpr int kStep = kNormThreads * 4;
  PC_SHARED(float[kNormThreads / 32], sums);
  PC_SHARED(float[kNormThreads / 32], squares);
  const float* in = args.in + std::int64_t{blockIdx.x} * args.in_stride;
  T* out = static_cast<T*>(args.out) + std::int64_t{blockIdx.x} * args.out_stride;
  const int first = threadIdx.x * 4;
  const float count = static_cast<float>(args.cols);

  float mean = 0.0f;
  if (args.params.kind == NormKind::layer) {
    float sum = 0.0f;
    for (int i = first; i < args.cols; i += kStep) {
      const float4 v = load_four(in + i, args.cols - i, 0.0f);
      sum += v.x + v.y + (v.z + v.w);
    }
    mean = block_sum(sum, sums) / count;
  }
  float square = 0.0f;
  for (int i = first; i < args.cols; i += kStep) square += sum_of_squares(load_four(in + i, args.cols - i, mean), mean);
  const float scale = rsqrtf(block_sum(square, squares) / count + args.params.eps);

  for (int i = first; i < args.cols; i += kStep) {
    const int left = args.cols - i;
    const float4 v = load_four(in + i, left, 0.0f), w = load_four(args.weight + i, left, 0.0f);
    const float offset = args.params.weight_offset;
    float4 y = make_float4((v.x - mean) * scale * (w.x + offset), (v.y - mean) * scale * (w.y + offset),
                           (v.z - mean) * scale * (w.z + offset), (v.w - mean) * scale * (w.w + offset));
    if (args.bias != nullptr) {
      const float4 b = load_four(args.bias + i, left, 0.0f);
      y = make_float4(y.x + b.x, y.y + b.y, y.z + b.z, y.w + b.w);
    }
    store_four(out + i, left, y);
  }
}

/// grid: (rows, blocks of heads); a warp a head.
static __global__ void __launch_bounds__(kHeadsPerBlock * 32) norm_heads(const HeadNormArgs args) {
  const int head = blockIdx.y * kHeadsPerBlock + warp_index();
  if (head >= args.heads) return;
  float* x = args.x + std::int64_t{blockIdx.x} * args.stride + std::int64_t{head} * args.head_dim;
  const int lane = lane_index();
  const float count = static_cast<float>(args.head_dim);

  float mean = 0.0f;
  if (args.params.kind == NormKind::layer) {
    float sum = 0.0f;
    for (int i = lane; i < args.head_dim; i += 32) sum += x[i];
    mean = warp_sum(sum) / count;
  }
  float square = 0.0f;
  for (int i = lane; i < args.head_dim; i += 32) square += (x[i] - mean) * (x[i] - mean);
  const float scale = rsqrtf(warp_sum(square) / count + args.params.eps);
  const int first = args.own_weights ? head * args.head_dim : 0;
  for (int i = lane; i < args.head_dim; i += 32) {
    const float y = (x[i] - mean) * scale * (args.weight[first + i] + args.params.weight_offset);
    x[i] = args.bias != nullptr ? y + args.bias[first + i] : y;
  }
}

}  // namespace pagedcore::cuda
