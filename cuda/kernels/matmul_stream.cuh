// Few input rows: the weights are read once, by as many warps as possible, straight into registers.
//
// A block takes a few tiles of 16 weight rows; warp w sums split w of k for all of them and all input rows, and the
// partial sums meet in shared memory. Bound by memory: nothing is staged, and while a warp multiplies what it has, the
// loads of others are in flight. A block asks for its inputs once, whatever its tiles, and for a scale once in all the
// groups of k that it serves.
#pragma once

#include <algorithm>

#include "kernels/matmul_epilogue.cuh"
#include "kernels/matmul_inputs.cuh"
#include "kernels/matmul_weights.cuh"
#include "kernels/ptx.cuh"

namespace pagedcore::cuda {

inline constexpr int kStreamThreads = kSplits * 32;

/// Groups of k whose loads a warp has in flight together: as many as registers allow. A thread has some 32 of weights,
/// or 16 where four bands of inputs take the others.
constexpr int stream_batch(WeightFormat format, int bands, int tiles) {
  const int share = bands == 1 ? 1 : 2, of_a_tile = tile_bytes(format) / 128;
  return std::max(1, std::min({4, 8 / tiles, 32 / of_a_tile / tiles}) / share);
}

/// grid: one block for kTiles of the `tiles` tiles of weight rows. kBands: bands of 8 input rows, 8 kBands >= m.
template <class T, WeightFormat kFormat, int kBands, int kTiles>
__global__ void __launch_bounds__(kStreamThreads, kBands* kTiles == 1 ? 3 : 2)
    matmul_stream(const MatmulArgs args, const int tiles) {
  constexpr int kBatch = stream_batch(kFormat, kBands, kTiles);
  constexpr int kMerged = kBands * kTiles <= 8 ? kTiles : 8 / kBands;  // tiles whose partial sums take 32 KiB
  using Tile = WeightTile<T, kFormat>;
  PC_SHARED(float2[kSplits][kMerged * kBands][2][32], partial);

  const int lane = threadIdx.x % 32, warp = warp_index();
  const int first_tile = blockIdx.x * kTiles;
  const int groups = static_cast<int>(k_groups(args.k)), span = static_cast<int>(groups_per_split(args.k));
  const int first = warp * span, last = min(first + span, groups);
  const int bands = kBands == 1 ? 1 : (args.m + 7) / 8;
  const bool aligned = inputs_aligned<T>(args);
  // Past the last tile the last one again: nothing of it is stored.
  const auto tile_at = [&](int t) { return min(first_tile + t, tiles - 1); };

  float sums[kTiles][kBands][4] = {};
  typename Tile::Scales scales[kTiles];
  int scale_group = first / args.k_groups_per_scale - 1, next_scales = first;
  for (int begin = first; begin < last; begin += kBatch) {
    Tile w[kBatch][kTiles];
    typename Tile::Scales loaded[kBatch][kTiles];
    bool changed[kBatch];
    uint4 x[kBatch][kBands];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int group = begin + b;
      if (group >= last) continue;
      changed[b] = group == next_scales;
      if (changed[b]) next_scales = (++scale_group + 1) * args.k_groups_per_scale;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const std::int64_t at = (std::int64_t{tile_at(t)} * groups + group) * tile_bytes(kFormat);
        w[b][t].load(args.weights + at, lane, [](const auto* from) { return __ldcs(from); });
        if (changed[b]) (kBatch == 1 ? scales : loaded[b])[t] = Tile::scales(args, tile_at(t), scale_group, lane);
      }
#pragma unroll
      for (int band = 0; band < kBands; ++band)
        x[b][band] = load_inputs<T>(args, band * 8 + lane / 4, group * kGroupK + lane % 4 * 8, args.k, aligned);
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (begin + b >= last) continue;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        if (kBatch > 1 && changed[b]) scales[t] = loaded[b][t];
        multiply_group<T>(sums[t], w[b][t].fragments(scales[t]), x[b], bands);
      }
    }
  }

#pragma unroll
  for (int begin = 0; begin < kTiles; begin += kMerged) {
    if (begin > 0) __syncthreads();
#pragma unroll
    for (int i = 0; i < kMerged * kBands; ++i) {
      const float(&sum)[4] = sums[begin + i / kBands][i % kBands];
      partial[warp][i][0][lane] = make_float2(sum[0], sum[2]);
      partial[warp][i][1][lane] = make_float2(sum[1], sum[3]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kMerged * kBands * 64; i += kStreamThreads) {
      const int place = i / 64, odd = i / 32 % 2, from = i % 32;
      float x = 0.0f, y = 0.0f;
#pragma unroll
      for (int split = 0; split < kSplits; ++split) {
        x += partial[split][place][odd][from].x;
        y += partial[split][place][odd][from].y;
      }
      finish_pair<T, kFormat>(args, first_tile + begin + place / kBands, from / 4,
                              place % kBands * 8 + from % 4 * 2 + odd, x, y);
    }
  }
}

}  // namespace pagedcore::cuda
