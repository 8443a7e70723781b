// One lane's part of a weight tile: loading it and turning it into operand A of two mma.m16n8k16.
#pragma once

#include "kernels/matmul.hpp"
#include "kernels/narrow.cuh"
#include "kernels/ptx.cuh"

namespace pagedcore::cuda {

/// Operand A of the two steps of a group of 32 columns.
struct WeightFragments {
  std::uint32_t a[2][4];
};

/// The loads are expressed through `Load`, a function of an address, since the same bytes lie in global or in shared
/// memory. `tile` is 16-byte aligned.
template <class T, WeightFormat kFormat>
struct WeightTile;

template <class T>
struct WeightTile<T, WeightFormat::native> {
  uint4 step[2];

  template <class Load>
  __device__ void load(const std::byte* tile, int lane, const Load& load) {
    step[0] = load(reinterpret_cast<const uint4*>(tile) + lane);
    step[1] = load(reinterpret_cast<const uint4*>(tile) + 32 + lane);
  }
  struct Scales {};
  static __device__ Scales scales(const MatmulArgs&, int, int, int) { return {}; }
  __device__ WeightFragments fragments(Scales) const {
    return {{{step[0].x, step[0].z, step[0].y, step[0].w}, {step[1].x, step[1].z, step[1].y, step[1].w}}};
  }
};

/// Four consecutive 8-bit values q + 128 as two pairs of T, exactly.
__device__ inline void widen8(std::uint32_t word, std::uint32_t& low, std::uint32_t& high, __half) {
  const __half2 offset = __floats2half2_rn(1024.0f + 128.0f, 1024.0f + 128.0f);
  low = bit_cast<std::uint32_t>(__hsub2(bit_cast<__half2>(__byte_perm(word, 0x64646464u, 0x4140)), offset));
  high = bit_cast<std::uint32_t>(__hsub2(bit_cast<__half2>(__byte_perm(word, 0x64646464u, 0x4342)), offset));
}
/// bf16 counts to 256 only in steps of 1, so the way is by f32, whose upper half is the result.
__device__ inline void widen8(std::uint32_t word, std::uint32_t& low, std::uint32_t& high, __nv_bfloat16) {
  constexpr std::uint32_t kMagic = 0x4B000000u;  // 2^23: its low bits count
  std::uint32_t wide[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float shifted = __uint_as_float(__byte_perm(word, kMagic, 0x7650 + i));
    wide[i] = __float_as_uint(shifted - (8388608.0f + 128.0f));
  }
  low = __byte_perm(wide[0], wide[1], 0x7632);
  high = __byte_perm(wide[2], wide[3], 0x7632);
}

template <class T>
__device__ inline std::uint32_t multiply_pair(std::uint32_t x, typename Narrow<T>::Pair scale) {
  return bit_cast<std::uint32_t>(__hmul2(bit_cast<typename Narrow<T>::Pair>(x), scale));
}

template <class T>
struct WeightTile<T, WeightFormat::int8_row> {
  uint4 words;  // [step][row g, row g + 8]

  template <class Load>
  __device__ void load(const std::byte* tile, int lane, const Load& load) {
    words = load(reinterpret_cast<const uint4*>(tile) + lane);
  }
  struct Scales {};
  static __device__ Scales scales(const MatmulArgs&, int, int, int) { return {}; }
  __device__ WeightFragments fragments(Scales) const {
    WeightFragments f;
    widen8(words.x, f.a[0][0], f.a[0][2], T{});
    widen8(words.y, f.a[0][1], f.a[0][3], T{});
    widen8(words.z, f.a[1][0], f.a[1][2], T{});
    widen8(words.w, f.a[1][1], f.a[1][3], T{});
    return f;
  }
};

/// Number of scale groups of a row.
__device__ inline int scale_groups(const MatmulArgs& args) {
  const int groups = static_cast<int>(k_groups(args.k));
  return (groups + args.k_groups_per_scale - 1) / args.k_groups_per_scale;
}

template <class T>
struct WeightTile<T, WeightFormat::int8_group> {
  using Pair = typename Narrow<T>::Pair;
  WeightTile<T, WeightFormat::int8_row> values;

  template <class Load>
  __device__ void load(const std::byte* tile, int lane, const Load& load) {
    values.load(tile, lane, load);
  }
  struct Scales {  // as loaded: what they become would have to wait for the load, and takes more registers
    std::uint32_t rows;
  };
  /// Of row tile `tile`, scale group `group`.
  static __device__ Scales scales(const MatmulArgs& args, int tile, int group, int lane) {
    const std::int64_t at = (std::int64_t{tile} * scale_groups(args) + group) * 8 + lane / 4;
    return {__ldg(static_cast<const std::uint32_t*>(args.scales) + at)};
  }
  __device__ WeightFragments fragments(const Scales& scales) const {
    WeightFragments f = values.fragments({});
    const auto rows = bit_cast<Pair>(scales.rows);
    const Pair scale[2] = {Pair(rows.x, rows.x), Pair(rows.y, rows.y)};
#pragma unroll
    for (int step = 0; step < 2; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) f.a[step][i] = multiply_pair<T>(f.a[step][i], scale[i % 2]);
    return f;
  }
};

template <class T>
struct WeightTile<T, WeightFormat::int4_group> {
  using Pair = typename Narrow<T>::Pair;
  uint2 words;  // one a step

  template <class Load>
  __device__ void load(const std::byte* tile, int lane, const Load& load) {
    words = load(reinterpret_cast<const uint2*>(tile) + lane);
  }
  struct Scales {
    uint2 rows;  // scales, zero points + kMagic
  };
  static __device__ Scales scales(const MatmulArgs& args, int tile, int group, int lane) {
    const std::int64_t at = (std::int64_t{tile} * scale_groups(args) + group) * 8 + lane / 4;
    return {__ldg(static_cast<const uint2*>(args.scales) + at)};
  }
  __device__ WeightFragments fragments(const Scales& scales) const {
    WeightFragments f;
    const auto rows = bit_cast<Pair>(scales.rows.x), zeros = bit_cast<Pair>(scales.rows.y);
    const Pair scale[2] = {Pair(rows.x, rows.x), Pair(rows.y, rows.y)};
    const Pair zero[2] = {Pair(zeros.x, zeros.x), Pair(zeros.y, zeros.y)};
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const std::uint32_t word = step == 0 ? words.x : words.y;
#pragma unroll
      for (int p = 0; p < 4; ++p) {  // pairs: row g columns 0-1 and 2-3, row g + 8 likewise
        const std::uint32_t shifted = (word >> 4 * p & 0x000F000Fu) | Narrow<T>::kMagicPair;
        const Pair value = __hsub2(bit_cast<Pair>(shifted), zero[p / 2]);
        f.a[step][p / 2 + p % 2 * 2] = bit_cast<std::uint32_t>(__hmul2(value, scale[p / 2]));
      }
    }
    return f;
  }
};

/// Bands of 8 input rows times one tile, over a group of 32 columns. Every band takes a step before any takes the next:
/// products that wait for each other are far apart, and the fragments of one step are in use at a time.
template <class T, int kBands>
__device__ inline void multiply_group(float (&sums)[kBands][4], const WeightFragments& w, const uint4 (&x)[kBands],
                                      int bands = kBands) {
#pragma unroll
  for (int step = 0; step < 2; ++step)
#pragma unroll
    for (int band = 0; band < kBands; ++band) {
      if (band >= bands) continue;
      const uint4& in = x[band];
      if (step == 0)
        mma_m16n8k16<T>(sums[band], w.a[0], {in.x, in.y});
      else
        mma_m16n8k16<T>(sums[band], w.a[1], {in.z, in.w});
    }
}

}  // namespace pagedcore::cuda
