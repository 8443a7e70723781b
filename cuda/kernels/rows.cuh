#pragma once

#include "kernels/four.cuh"
#include "kernels/matmul_weights.cuh"
#include "kernels/rows.hpp"

namespace pagedcore::cuda {

inline constexpr int kRowThreads = 128;

/// a where the mask is 0, b where it is ~0: a choice by index would put what there is to choose from in memory.
__device__ inline std::uint32_t choose(std::uint32_t a, std::uint32_t b, std::uint32_t mask) {
  return a ^ ((a ^ b) & mask);
}

/// A thread unpacks what one lane of a matmul holds, 8 columns of two rows, and keeps four columns of the row it wants:
/// the weights are bit for bit those that the matmul multiplies, and stores fill whole sectors. grid: one block per
/// output row.
template <class T, WeightFormat kFormat>
__global__ void __launch_bounds__(kRowThreads) embed_rows(const EmbedArgs args) {
  using Tile = WeightTile<T, kFormat>;
  const std::int64_t place = stacked_row(args.first + args.tokens[blockIdx.x]);
  const int tile = static_cast<int>(place / kTileRows), row = static_cast<int>(place % kTileRows);
  const int g = row % 8, half = row / 8;
  const int groups = static_cast<int>(k_groups(args.k));
  float* out = args.out + std::int64_t{blockIdx.x} * args.out_stride;
  const std::uint32_t second = half == 0 ? 0u : ~0u;
  float scale = args.scale;
  if constexpr (kFormat == WeightFormat::int8_row)
    scale *= static_cast<const float*>(args.scales)[std::int64_t{tile} * kTileRows + g * 2 + half];
  MatmulArgs matrix;
  matrix.k = args.k;
  matrix.scales = args.scales;
  matrix.k_groups_per_scale = args.k_groups_per_scale;

  for (int column = threadIdx.x * 4; column < args.k; column += kRowThreads * 4) {
    const int group = column / kGroupK, lane = g * 4 + column / 8 % 4;
    Tile w;
    w.load(args.weights + (std::int64_t{tile} * groups + group) * tile_bytes(kFormat), lane,
           [](const auto* at) { return __ldg(at); });
    const WeightFragments f = w.fragments(Tile::scales(matrix, tile, group / args.k_groups_per_scale, lane));
    const std::uint32_t step = column / 4 % 2 == 0 ? 0u : ~0u;
    float2 pairs[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t of_g = choose(f.a[0][2 * i], f.a[1][2 * i], step);
      const std::uint32_t of_g_plus_8 = choose(f.a[0][2 * i + 1], f.a[1][2 * i + 1], step);
      const auto pair = bit_cast<typename Narrow<T>::Pair>(choose(of_g, of_g_plus_8, second));
      pairs[i] = make_float2(scale * Narrow<T>::to_float(pair.x), scale * Narrow<T>::to_float(pair.y));
    }
    store_four(out + column, args.k - column, make_float4(pairs[0].x, pairs[0].y, pairs[1].x, pairs[1].y));
  }
}

/// Of a plain table. grid: one block per output row.
template <class T>
__global__ void __launch_bounds__(kRowThreads) embed_plain_rows(const EmbedArgs args) {
  using Pair = typename Narrow<T>::Pair;
  const auto* row =
      reinterpret_cast<const T*>(args.weights) + (std::int64_t{args.first} + args.tokens[blockIdx.x]) * args.k;
  float* out = args.out + std::int64_t{blockIdx.x} * args.out_stride;
  const bool aligned = args.k % 4 == 0;  // then all rows are, to 8 bytes
  const auto element = [&](int column) { return column < args.k ? Narrow<T>::to_float(row[column]) : 0.0f; };
  for (int column = threadIdx.x * 4; column < args.k; column += kRowThreads * 4) {
    float4 v;
    if (aligned) {
      const uint2 bits = __ldg(reinterpret_cast<const uint2*>(row + column));
      const auto low = bit_cast<Pair>(bits.x), high = bit_cast<Pair>(bits.y);
      v = make_float4(Narrow<T>::to_float(low.x), Narrow<T>::to_float(low.y), Narrow<T>::to_float(high.x),
                      Narrow<T>::to_float(high.y));
    } else {
      v = make_float4(element(column), element(column + 1), element(column + 2), element(column + 3));
    }
    const float scale = args.scale;
    store_four(out + column, args.k - column, make_float4(scale * v.x, scale * v.y, scale * v.z, scale * v.w));
  }
}

/// grid: (rows, parts of a row).
static __global__ void __launch_bounds__(kRowThreads) add_rows(const AddArgs args) {
  float* x = args.x + std::int64_t{blockIdx.x} * args.x_stride;
  const float* y = args.y + std::int64_t{blockIdx.x} * args.y_stride;
  for (int i = blockIdx.y * kRowThreads + threadIdx.x; i < args.cols; i += gridDim.y * kRowThreads)
    x[i] = __fadd_rn(x[i], __fmul_rn(args.scale, y[i]));
}

/// grid: (rows, parts of a row).
template <class T>
__global__ void __launch_bounds__(kRowThreads) convert_rows(const ConvertArgs args) {
  T* out = static_cast<T*>(args.out) + std::int64_t{blockIdx.x} * args.out_stride;
  const float* in = args.in + std::int64_t{blockIdx.x} * args.in_stride;
  const int step = static_cast<int>(gridDim.y) * kRowThreads * 4;
  for (int i = static_cast<int>(blockIdx.y * kRowThreads + threadIdx.x) * 4; i < args.cols; i += step)
    store_four(out + i, args.cols - i, load_four(in + i, args.cols - i, 0.0f));
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
