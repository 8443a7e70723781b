// One pass over the rows of q, k and v: rotate, quantize, store. A warp for each (row, query head) and (row, KV head).
//
// The cache never holds a value that is not finite: a token with one gets NaN keys and zero values. Rows that see the
// token become NaN, as they must; in the matrix products of rows that do not, its probability of zero meets zeros.
#pragma once

#include "kernels/element.cuh"
#include "kernels/rope_cache.hpp"

namespace pagedcore::cuda {

inline constexpr int kRopeWarps = 4;
inline constexpr int kMaxHeadDim = 256;

/// sin and cos of pi x need no slow path for large arguments. The angle itself is rounded to f32, as models are trained
/// with that rounding; only its reduction is in double.
__global__ void __launch_bounds__(128) rotary_table_kernel(RotaryTableArgs args) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 128 + threadIdx.x;
  if (i >= static_cast<int64_t>(args.rows) * args.num_frequencies) return;
  const int row = static_cast<int>(i / args.num_frequencies), frequency = static_cast<int>(i % args.num_frequencies);
  const float angle = __fmul_rn(static_cast<float>(args.positions[row]), args.inv_freq[frequency]);
  const double half_turns = static_cast<double>(angle) * 0.31830988618379067;
  float sin, cos;
  sincospif(static_cast<float>(half_turns - 2.0 * rint(0.5 * half_turns)), &sin, &cos);
  args.cos[i] = cos * args.magnitude;
  args.sin[i] = sin * args.magnitude;
}

__device__ inline void load_head(float* head, const float* from, int head_dim) {
  for (int d = static_cast<int>(lane_index()) * 4; d < head_dim; d += 128)
    *reinterpret_cast<float4*>(head + d) = *reinterpret_cast<const float4*>(from + d);
}

/// In shared memory; pairs of dimensions are one lane's.
__device__ inline void rotate_head(float* head, const RopeCacheArgs& args, int row) {
  const int64_t angles = static_cast<int64_t>(row) * args.num_frequencies;
  for (int i = static_cast<int>(lane_index()); i < args.num_frequencies; i += 32) {
    const float cos = args.cos[angles + i], sin = args.sin[angles + i];
    const float x = head[i], y = head[i + args.num_frequencies];
    head[i] = x * cos - y * sin;
    head[i + args.num_frequencies] = y * cos + x * sin;
  }
}

/// Stores a head of 16-bit elements, or `fill` in each of them where `replace`.
template <typename T>
__device__ void store_head(T* to, const float* head, int head_dim, bool replace = false, float fill = 0.0f) {
  const int d = static_cast<int>(lane_index()) * 8;
  if (d >= head_dim) return;
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) words[i] = replace ? pack<T>(fill, fill) : pack<T>(head[d + 2 * i], head[d + 2 * i + 1]);
  *reinterpret_cast<uint4*>(to + d) = make_uint4(words[0], words[1], words[2], words[3]);
}

/// Whether all elements of a head are finite once they are rounded to T.
template <typename T>
__device__ bool all_finite(const float* head, int head_dim) {
  bool finite = true;
  for (int d = static_cast<int>(lane_index()); d < head_dim; d += 32)
    finite = finite && fabsf(static_cast<float>(static_cast<T>(head[d]))) < kInfinity;
  return __all_sync(kAllLanes, finite);
}

/// What a quantized row is divided by; NaN for a row that is not finite. Rounded up to a bf16, in which values are
/// scaled.
template <KvType kKv>
__device__ float row_scale(const float* head, int head_dim) {
  uint32_t largest = 0;  // the bits of magnitudes compare as integers, NaN the largest
  for (int d = static_cast<int>(lane_index()); d < head_dim; d += 32)
    largest = max(largest, __float_as_uint(head[d]) & 0x7fffffffu);
  largest = __reduce_max_sync(kAllLanes, largest);
  if (largest >= 0x7f800000u) return __uint_as_float(0x7fffffffu);
  const float magnitude = __uint_as_float(largest);
  if (magnitude < 1e-30f) return 0.0f;
  return __uint_as_float((__float_as_uint(magnitude / quantized_max(kKv)) + 0xffffu) & 0xffff0000u);
}

template <KvType kKv>
__device__ uint32_t quantize(float x) {
  if constexpr (kKv == KvType::int8)
    return static_cast<uint32_t>(__float2int_rn(fminf(fmaxf(x, -127.0f), 127.0f))) & 0xffu;
  return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}

template <KvType kKv>
__device__ void store_quantized(std::byte* to, const float* head, int head_dim, float scale) {
  const int first = static_cast<int>(lane_index()) * 16;
  if (first >= head_dim) return;
  const bool zero = !(scale > 0.0f);  // or not finite: the scale says so
  const float inverse = zero ? 0.0f : 1.0f / scale;
  uint32_t words[4] = {};
#pragma unroll
  for (int i = 0; i < 16; ++i)
    words[kv_place(i) / 4] |= quantize<kKv>(zero ? 0.0f : head[first + i] * inverse) << kv_place(i) % 4 * 8;
  *reinterpret_cast<uint4*>(to + first) = make_uint4(words[0], words[1], words[2], words[3]);
}

template <typename T, KvType kKv>
__global__ void __launch_bounds__(32 * kRopeWarps) rope_and_cache_kernel(RopeCacheArgs args) {
  PC_SHARED(float[kRopeWarps][2][kMaxHeadDim], heads);
  const int warp = static_cast<int>(warp_index()), jobs = args.num_heads + args.kv.num_kv_heads;
  const int64_t job = static_cast<int64_t>(blockIdx.x) * kRopeWarps + warp;
  if (job >= static_cast<int64_t>(args.rows) * jobs) return;
  const int row = static_cast<int>(job / jobs), head = static_cast<int>(job % jobs);
  const KvTile& tile = args.kv.tile;
  const int dim = tile.head_dim;
  const float* in = args.qkv + row * args.qkv_stride + static_cast<int64_t>(head) * dim;
  float* k = heads[warp][0];
  float* v = heads[warp][1];

  const bool is_query = head < args.num_heads;
  load_head(k, in, dim);
  if (!is_query) load_head(v, in + static_cast<int64_t>(args.kv.num_kv_heads) * dim, dim);
  __syncwarp();
  rotate_head(k, args, row);
  __syncwarp();
  if (is_query) {
    store_head(static_cast<T*>(args.q) + row * args.q_stride + static_cast<int64_t>(head) * dim, k, dim);
    return;
  }

  const int position = args.positions[row], token_slot = position % tile.block_size;
  const uint32_t block = args.tables[args.row_tables[row] + position / tile.block_size];
  std::byte* k_tile = args.kv.data + args.kv.tile_offset(block, head - args.num_heads);
  std::byte* v_tile = k_tile + tile.bytes();
  if constexpr (is_quantized(kKv)) {
    float k_scale = row_scale<kKv>(k, dim), v_scale = row_scale<kKv>(v, dim);
    if (v_scale != v_scale) k_scale = v_scale, v_scale = 0.0f;
    store_quantized<kKv>(k_tile + token_slot * tile.row_bytes(), k, dim, k_scale);
    store_quantized<kKv>(v_tile + token_slot * tile.row_bytes(), v, dim, v_scale);
    if (lane_index() == 0) {
      reinterpret_cast<float*>(k_tile + tile.scales_offset())[token_slot] = k_scale;
      reinterpret_cast<float*>(v_tile + tile.scales_offset())[token_slot] = v_scale;
    }
  } else {
    const bool broken = !all_finite<T>(v, dim);
    store_head(reinterpret_cast<T*>(k_tile + token_slot * tile.row_bytes()), k, dim, broken,
               __uint_as_float(0x7fffffffu));
    store_head(reinterpret_cast<T*>(v_tile + token_slot * tile.row_bytes()), v, dim, broken);
  }
}

}  // namespace pagedcore::cuda
