// Few input rows: the weights are read once, by as many warps as possible, straight into registers.
//
// A block takes one tile of 16 weight rows; warp w sums split w of k for all input rows, and the partial sums meet in
// shared memory. Bound by memory: nothing is staged, the next loads are in flight while a batch is multiplied.
#pragma once

#include "kernels/matmul_epilogue.cuh"
#include "kernels/matmul_inputs.cuh"
#include "kernels/matmul_weights.cuh"
#include "kernels/ptx.cuh"

namespace pagedcore::cuda {

inline constexpr int kStreamThreads = kSplits * 32;

/// grid: one block per tile of weight rows. kBands: bands of 8 input rows, 8 kBands >= m.
template <class T, WeightFormat kFormat, int kBands>
__global__ void __launch_bounds__(kStreamThreads, kBands == 1 ? 3 : 2) matmul_stream(const MatmulArgs args) {
  constexpr int kBatch = kBands == 4 ? 2 : 4;  // groups of k whose loads are in flight together
  using Tile = WeightTile<T, kFormat>;
  PC_SHARED(float2[kSplits][kBands][2][32], partial);

  const int lane = threadIdx.x % 32, warp = warp_index();
  const int tile = blockIdx.x;
  const int groups = static_cast<int>(k_groups(args.k)), span = static_cast<int>(groups_per_split(args.k));
  const int first = warp * span, last = min(first + span, groups);
  const std::byte* weights = args.weights + std::int64_t{tile} * groups * tile_bytes(kFormat);
  const bool aligned = inputs_aligned<T>(args);

  float sums[kBands][4] = {};
  for (int begin = first; begin < last; begin += kBatch) {
    Tile w[kBatch];
    typename Tile::Scales scales[kBatch];
    uint4 x[kBatch][kBands];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int group = begin + b;
      if (group >= last) continue;
      w[b].load(weights + std::int64_t{group} * tile_bytes(kFormat), lane, [](const auto* at) { return __ldcs(at); });
      scales[b] = Tile::scales(args, tile, group / args.k_groups_per_scale, lane);
#pragma unroll
      for (int band = 0; band < kBands; ++band)
        x[b][band] = load_inputs<T>(args, band * 8 + lane / 4, group * kGroupK + lane % 4 * 8, aligned);
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (begin + b >= last) continue;
      const WeightFragments f = w[b].fragments(scales[b]);
#pragma unroll
      for (int band = 0; band < kBands; ++band) multiply_group<T>(sums[band], f, x[b][band]);
    }
  }

#pragma unroll
  for (int band = 0; band < kBands; ++band) {
    partial[warp][band][0][lane] = make_float2(sums[band][0], sums[band][2]);
    partial[warp][band][1][lane] = make_float2(sums[band][1], sums[band][3]);
  }
#ifndef PC_MUTATE_STREAM_MERGE_BARRIER
  __syncthreads();
#endif
  for (int i = threadIdx.x; i < kBands * 64; i += kStreamThreads) {
    const int band = i / 64, odd = i / 32 % 2, from = i % 32;
    float x = 0.0f, y = 0.0f;
#pragma unroll
    for (int split = 0; split < kSplits; ++split) {
      x += partial[split][band][odd][from].x;
      y += partial[split][band][odd][from].y;
    }
    finish_pair<T, kFormat>(args, tile, from / 4, band * 8 + from % 4 * 2 + odd, x, y);
  }
}

}  // namespace pagedcore::cuda
