// Many input rows: tiles of 128 weight rows by 64 input rows, copied to shared memory several groups of k ahead.
//
// Four warps, two by two: each multiplies 4 weight tiles by 4 bands of 8 input rows. Both operands leave shared memory
// as 16 consecutive bytes a lane without bank conflicts: the weights because they are packed so, the inputs because a
// stage holds 32 columns, 64 bytes, of a row and nothing between rows.
#pragma once

#include "kernels/matmul_epilogue.cuh"
#include "kernels/matmul_inputs.cuh"
#include "kernels/matmul_weights.cuh"
#include "kernels/ptx.cuh"

namespace pagedcore::cuda {

inline constexpr int kTiledThreads = 128;
inline constexpr int kBlockTiles = 8;  // weight tiles of a block
inline constexpr int kBlockRows = 64;  // input rows of a block
inline constexpr int kStages = 4;
inline constexpr int kWarpTiles = kBlockTiles / 2;
inline constexpr int kWarpBands = kBlockRows / 8 / 2;
inline constexpr int kInputStageBytes = kBlockRows * kGroupK * 2;

constexpr PC_HOST_DEVICE int stage_bytes(WeightFormat format) {
  return kBlockTiles * tile_bytes(format) + kInputStageBytes;
}

/// Which inputs a group takes: columns from `column` on, before `end`.
struct GroupColumns {
  int column, end;
};

/// Starts the copies of group `group` into a stage: weights of kTiles tiles, then inputs.
template <class T, WeightFormat kFormat, int kTiles = kBlockTiles>
__device__ inline void copy_stage(std::byte* stage, const MatmulArgs& args, int tiles, int groups, int group,
                                  GroupColumns columns, bool aligned) {
  constexpr int kPieces = tile_bytes(kFormat) / 16;  // of one tile
#pragma unroll
  for (int i = threadIdx.x; i < kTiles * kPieces; i += kTiledThreads) {
    const int tile = blockIdx.y * kTiles + i / kPieces;
    const bool there = tile < tiles;
    const std::int64_t at = (std::int64_t{there ? tile : 0} * groups + group) * tile_bytes(kFormat);
    cp_async16_zfill(stage + i * 16, args.weights + at + i % kPieces * 16, there);
  }
  std::byte* inputs = stage + kTiles * tile_bytes(kFormat);
#pragma unroll
  for (int i = threadIdx.x; i < kBlockRows * 4; i += kTiledThreads) {
    const int row = blockIdx.x * kBlockRows + i / 4, column = columns.column + i % 4 * 8;
    if (aligned) {
      const bool there = row < args.m && column < columns.end;
      const T* in = static_cast<const T*>(args.in);
      cp_async16_zfill(inputs + i * 16, there ? in + row * args.in_stride + column : in, there);
    } else {
      *reinterpret_cast<uint4*>(inputs + i * 16) = gather_inputs<T>(args, row, column, columns.end);
    }
  }
}

/// grid: (blocks of input rows, blocks of weight tiles); shared memory: kStages stages.
template <class T, WeightFormat kFormat>
__global__ void __launch_bounds__(kTiledThreads, 2) matmul_tiled(const MatmulArgs args, const int tiles) {
  using Tile = WeightTile<T, kFormat>;
  constexpr int kStageBytes = stage_bytes(kFormat);
  PC_DYNAMIC_SHARED(std::byte, stages);

  const int lane = threadIdx.x % 32, warp = warp_index();
  const int first_tile = warp / 2 * kWarpTiles, first_band = warp % 2 * kWarpBands;  // within the block
  const int groups = static_cast<int>(k_groups(args.k)), span = static_cast<int>(groups_per_split(args.k));
  const bool aligned = inputs_aligned<T>(args);
  const auto columns_of = [&](int group) { return GroupColumns{group * kGroupK, args.k}; };

  typename Tile::Scales scales[kWarpTiles];
  float sums[kWarpTiles][kWarpBands][4] = {}, totals[kWarpTiles][kWarpBands][4] = {};
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < groups) copy_stage<T, kFormat>(stages + s * kStageBytes, args, tiles, groups, s, columns_of(s), aligned);
    cp_async_commit();
  }
  int split_end = span;
  for (int group = 0; group < groups; ++group) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // the copies of all threads are there, and the stage before this one is free
    const int ahead = group + kStages - 1;
    if (ahead < groups)
      copy_stage<T, kFormat>(stages + ahead % kStages * kStageBytes, args, tiles, groups, ahead, columns_of(ahead),
                             aligned);
    cp_async_commit();

    const std::byte* stage = stages + group % kStages * kStageBytes;
    const auto* inputs = reinterpret_cast<const uint4*>(stage + kBlockTiles * tile_bytes(kFormat));
    if (group % args.k_groups_per_scale == 0) {
#pragma unroll
      for (int i = 0; i < kWarpTiles; ++i) {
        const int tile = min(static_cast<int>(blockIdx.y) * kBlockTiles + first_tile + i, tiles - 1);
        scales[i] = Tile::scales(args, tile, group / args.k_groups_per_scale, lane);
      }
    }
    uint4 x[kWarpBands];
#pragma unroll
    for (int band = 0; band < kWarpBands; ++band) x[band] = inputs[(first_band + band) * 32 + lane];
#pragma unroll
    for (int i = 0; i < kWarpTiles; ++i) {
      Tile w;
      w.load(stage + (first_tile + i) * tile_bytes(kFormat), lane, [](const auto* at) { return *at; });
      multiply_group<T>(sums[i], w.fragments(scales[i]), x);
    }

    if (group + 1 == split_end || group + 1 == groups) {
      split_end += span;
#pragma unroll
      for (int i = 0; i < kWarpTiles; ++i)
#pragma unroll
        for (int band = 0; band < kWarpBands; ++band)
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            totals[i][band][j] += sums[i][band][j];
            sums[i][band][j] = 0.0f;
          }
    }
  }
  cp_async_wait<0>();

#pragma unroll
  for (int i = 0; i < kWarpTiles; ++i)
#pragma unroll
    for (int band = 0; band < kWarpBands; ++band) {
      const int tile = blockIdx.y * kBlockTiles + first_tile + i;
      const std::int64_t row = std::int64_t{blockIdx.x} * kBlockRows + (first_band + band) * 8 + lane % 4 * 2;
      finish_pair<T, kFormat>(args, tile, lane / 4, row, totals[i][band][0], totals[i][band][2]);
      finish_pair<T, kFormat>(args, tile, lane / 4, row + 1, totals[i][band][1], totals[i][band][3]);
    }
}

}  // namespace pagedcore::cuda
