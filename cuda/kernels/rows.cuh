#pragma once

#include "kernels/four.cuh"
#include "kernels/matmul_inputs.cuh"
#include "kernels/matmul_weights.cuh"
#include "kernels/rows.hpp"

namespace pagedcore::cuda {

inline constexpr int kRowThreads = 128;

/// Stores scale * (a, b), scale * (c, d) at out + column and + 4, as far as they are below k.
__device__ inline void store_scaled(float* out, int column, int k, float scale, const float2 (&pairs)[4]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int at = column + 4 * i;
    const float2 x = pairs[2 * i], y = pairs[2 * i + 1];
    if (at < k) store_four(out + at, k - at, make_float4(scale * x.x, scale * x.y, scale * y.x, scale * y.y));
  }
}

/// A thread unpacks what one lane of a matmul holds, 8 columns of two rows, and keeps the row it wants: the weights are
/// bit for bit those that the matmul multiplies. grid: one block per output row.
template <class T, WeightFormat kFormat>
__global__ void __launch_bounds__(kRowThreads) embed_rows(const EmbedArgs args) {
  using Tile = WeightTile<T, kFormat>;
  const std::int64_t place = stacked_row(args.tokens[blockIdx.x]);
  const int tile = static_cast<int>(place / kTileRows), row = static_cast<int>(place % kTileRows);
  const int g = row % 8, half = row / 8;
  const int groups = static_cast<int>(k_groups(args.k));
  float* out = args.out + std::int64_t{blockIdx.x} * args.out_stride;
  const std::uint32_t second = half == 0 ? 0u : ~0u;  // a mask: a choice by index would put the fragments in memory
  float scale = args.scale;
  if constexpr (kFormat == WeightFormat::int8_row)
    scale *= static_cast<const float*>(args.scales)[std::int64_t{tile} * kTileRows + g * 2 + half];
  MatmulArgs matrix;
  matrix.k = args.k;
  matrix.scales = args.scales;
  matrix.k_groups_per_scale = args.k_groups_per_scale;

  for (int column = threadIdx.x * 8; column < args.k; column += kRowThreads * 8) {
    const int group = column / kGroupK, lane = g * 4 + column / 8 % 4;
    Tile w;
    w.load(args.weights + (std::int64_t{tile} * groups + group) * tile_bytes(kFormat), lane,
           [](const auto* at) { return __ldg(at); });
    const WeightFragments f = w.fragments(Tile::scales(matrix, tile, group / args.k_groups_per_scale, lane));
    float2 pairs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t g_row = f.a[i / 2][i % 2 * 2], g_row_plus_8 = f.a[i / 2][i % 2 * 2 + 1];
      const auto pair = bit_cast<typename Narrow<T>::Pair>(g_row ^ ((g_row ^ g_row_plus_8) & second));
      pairs[i] = make_float2(Narrow<T>::to_float(pair.x), Narrow<T>::to_float(pair.y));
    }
    store_scaled(out, column, args.k, scale, pairs);
  }
}

/// Of a plain table, whose rows are read as a matmul reads its inputs. grid: one block per output row.
template <class T>
__global__ void __launch_bounds__(kRowThreads) embed_plain_rows(const EmbedArgs args) {
  MatmulArgs table;
  table.in = args.weights;
  table.in_stride = table.k = args.k;
  const int token = args.tokens[blockIdx.x];
  table.m = token + 1;
  const bool aligned = inputs_aligned<T>(table);
  float* out = args.out + std::int64_t{blockIdx.x} * args.out_stride;
  for (int column = threadIdx.x * 8; column < args.k; column += kRowThreads * 8) {
    const uint4 bits = load_inputs<T>(table, token, column, aligned);
    const std::uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
    float2 pairs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto pair = bit_cast<typename Narrow<T>::Pair>(words[i]);
      pairs[i] = make_float2(Narrow<T>::to_float(pair.x), Narrow<T>::to_float(pair.y));
    }
    store_scaled(out, column, args.k, args.scale, pairs);
  }
}

/// grid: (rows, parts of a row).
static __global__ void __launch_bounds__(kRowThreads) scale_softcap(const SoftcapArgs args) {
  float* x = args.x + std::int64_t{blockIdx.x} * args.stride;
  for (int i = blockIdx.y * kRowThreads + threadIdx.x; i < args.cols; i += gridDim.y * kRowThreads) {
    const float scaled = args.scale * x[i];
    x[i] = args.softcap > 0.0f ? args.softcap * tanhf(scaled / args.softcap) : scaled;
  }
}

}  // namespace pagedcore::cuda
