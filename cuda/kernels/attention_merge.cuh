// Rows whose context was split: their segments' states, merged in ascending order as attention_kernel merges them.
#pragma once

#include "kernels/attention.hpp"
#include "kernels/element.cuh"
#include "kernels/softmax_state.cuh"

namespace pagedcore::cuda {

inline constexpr int kMergeWarps = 4;

/// A warp for each (row, head), head fastest.
template <typename T, int kHeadDim>
__global__ void __launch_bounds__(32 * kMergeWarps) merge_states_kernel(AttentionArgs args) {
  constexpr int kPairs = (kHeadDim / 2 + 31) / 32;  // of elements, of a lane
  const int index = static_cast<int>(blockIdx.x * kMergeWarps + warp_index());
  if (index >= args.num_split_rows * args.num_heads) return;
  const int row = args.split_rows[index / args.num_heads], head = index % args.num_heads;
  const int lane = static_cast<int>(lane_index()), position = args.positions[row];
  const int lowest = args.window > 0 ? max(0, position - args.window + 1) : 0;
  const int segments = position / kContextSegment - lowest / kContextSegment + 1;

  StateMax max;
  float sum = 0.0f, acc[kPairs][2] = {};
  for (int segment = 0; segment < segments; ++segment) {
    const int64_t number = static_cast<int64_t>(args.row_states[row] + segment) * args.num_heads + head;
    const float* state = args.states + number * attention_state_size(kHeadDim);
    const float2 ml = *reinterpret_cast<const float2*>(state + kHeadDim);
    const MergeWeights w = merge_weights(max.m, ml.x);
    max.m = w.m;
    sum = merge(w, sum, ml.y);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int at = (i * 32 + lane) * 2;
      if (kHeadDim % 64 != 0 && at >= kHeadDim) continue;
      const float2 x = *reinterpret_cast<const float2*>(state + at);
      acc[i][0] = merge(w, acc[i][0], x.x);
      acc[i][1] = merge(w, acc[i][1], x.y);
    }
  }
  const float scale = normalizer(sum);
  T* out = static_cast<T*>(args.out) + row * args.out_stride + static_cast<int64_t>(head) * kHeadDim;
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int at = (i * 32 + lane) * 2;
    if (kHeadDim % 64 != 0 && at >= kHeadDim) continue;
    *reinterpret_cast<uint32_t*>(out + at) = pack<T>(__fmul_rn(acc[i][0], scale), __fmul_rn(acc[i][1], scale));
  }
}

}  // namespace pagedcore::cuda
