// The epilogue of sums that a library has made: the same code that finishes our own products.
#pragma once

#include "kernels/matmul_epilogue.cuh"

namespace pagedcore::cuda {

inline constexpr int kFinishThreads = 256;

/// A thread takes two sums at a time, which are what finish_sums() takes. grid: (rows, parts of a row).
template <class T>
__global__ void __launch_bounds__(kFinishThreads) matmul_finish(const MatmulArgs args, const float* sums) {
  const bool gated = args.finish == Epilogue::Kind::gated;
  const std::int64_t row = blockIdx.x;
  const float* in = sums + row * args.n * (gated ? 2 : 1);
  const int step = gated ? 1 : 2, second = gated ? args.n : 1;  // from one sum to the other
  const bool aligned = !gated && reinterpret_cast<std::uintptr_t>(in) % sizeof(float2) == 0;
  for (int at = (blockIdx.y * kFinishThreads + threadIdx.x) * step; at < args.n;
       at += gridDim.y * kFinishThreads * step) {
    float2 pair;
    const bool both = gated || at + 1 < args.n;
    if (aligned && both)
      pair = *reinterpret_cast<const float2*>(in + at);
    else
      pair = make_float2(in[at], both ? in[at + second] : 0.0f);
    finish_sums<T>(args, row, at, pair.x, pair.y);
  }
}

}  // namespace pagedcore::cuda
