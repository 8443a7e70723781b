// What happens to finished sums on their way out: scale, bias, activation, the gate, the output type. One piece of code
// for all kernels, so that a row's bits do not depend on the kernel that it went through.
#pragma once

#include "kernels/activation.cuh"
#include "kernels/matmul.hpp"
#include "kernels/narrow.cuh"

namespace pagedcore::cuda {

/// Stores outputs `at` and `at` + 1 of a row, as far as they exist.
template <class T>
__device__ inline void store_pair(const MatmulArgs& args, std::int64_t row, int at, float x, float y) {
  const std::int64_t offset = row * args.out_stride + at;
  if (args.out_is_narrow) {
    T* out = static_cast<T*>(args.out) + offset;
    if (at + 1 < args.n && reinterpret_cast<std::uintptr_t>(out) % (2 * sizeof(T)) == 0) {
      *reinterpret_cast<std::uint32_t*>(out) = pack_pair<T>(x, y);
      return;
    }
    out[0] = Narrow<T>::from_float(x);
    if (at + 1 < args.n) out[1] = Narrow<T>::from_float(y);
  } else {
    float* out = static_cast<float*>(args.out) + offset;
    if (at + 1 < args.n && reinterpret_cast<std::uintptr_t>(out) % (2 * sizeof(float)) == 0) {
      *reinterpret_cast<float2*>(out) = make_float2(x, y);
      return;
    }
    out[0] = x;
    if (at + 1 < args.n) out[1] = y;
  }
}

/// Finishes two sums of one row: outputs `at` and, where it exists, `at` + 1; or gate and up of output `at`.
template <class T>
__device__ inline void finish_sums(const MatmulArgs& args, std::int64_t row, int at, float x, float y) {
  if (args.finish == Epilogue::Kind::gated) {
    if (args.bias != nullptr) {
      x += args.bias[at];
      y += args.bias[args.n + at];
    }
    const float value = activate(args.activation, x) * y;
    const std::int64_t offset = row * args.out_stride + at;
    if (args.out_is_narrow)
      static_cast<T*>(args.out)[offset] = Narrow<T>::from_float(value);
    else
      static_cast<float*>(args.out)[offset] = value;
    return;
  }
  const bool both = at + 1 < args.n;
  if (args.bias != nullptr) {
    x += args.bias[at];
    if (both) y += args.bias[at + 1];
  }
  if (args.finish == Epilogue::Kind::accumulate) {
    const float* out = static_cast<const float*>(args.out) + row * args.out_stride + at;
    x += out[0];
    if (both) y += out[1];
  } else if (args.finish == Epilogue::Kind::activated) {
    x = activate(args.activation, x);
    if (both) y = activate(args.activation, y);
  }
  store_pair<T>(args, row, at, x, y);
}

/// Finishes rows g and g + 8 of a weight tile for one input row: two neighbouring outputs, or a gate and its up.
template <class T, WeightFormat kFormat>
__device__ inline void finish_pair(const MatmulArgs& args, int tile, int g, std::int64_t row, float x, float y) {
  const bool gated = args.finish == Epilogue::Kind::gated;
  const int at = gated ? tile * (kTileRows / 2) + g : tile * kTileRows + 2 * g;
  if (row >= args.m || at >= args.n) return;
  if constexpr (kFormat == WeightFormat::int8_row) {
    const float2 scale = __ldg(static_cast<const float2*>(args.scales) + std::int64_t{tile} * 8 + g);
    x *= scale.x;
    y *= scale.y;
  }
  finish_sums<T>(args, row, at, x, y);
}

}  // namespace pagedcore::cuda
