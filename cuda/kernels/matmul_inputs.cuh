// Operand B: input rows, in the order of k that the packed weights have.
#pragma once

#include "kernels/matmul.hpp"
#include "kernels/narrow.cuh"

namespace pagedcore::cuda {

/// Whether eight consecutive inputs from a multiple of 8 on are 16 aligned bytes that lie wholly inside or outside a
/// row.
template <class T>
__device__ inline bool inputs_aligned(const MatmulArgs& args) {
  return args.k % 8 == 0 && args.in_stride % 8 == 0 && reinterpret_cast<std::uintptr_t>(args.in) % 16 == 0;
}

/// Inputs [column, column + 8) of a row, element by element; zero from `end` on, and where there are none.
template <class T>
__device__ inline uint4 gather_inputs(const MatmulArgs& args, int row, int column, int end) {
  alignas(16) T values[8];
  const T* in = static_cast<const T*>(args.in) + row * args.in_stride;
#pragma unroll
  for (int i = 0; i < 8; ++i)
    values[i] = row < args.m && column + i < end ? in[column + i] : Narrow<T>::from_float(0.0f);
  return bit_cast<uint4>(values);
}

/// The same, by one load where `aligned`. `column` is a multiple of 8.
template <class T>
__device__ inline uint4 load_inputs(const MatmulArgs& args, int row, int column, int end, bool aligned) {
  if (!aligned) return gather_inputs<T>(args, row, column, end);
  if (row >= args.m || column >= end) return make_uint4(0, 0, 0, 0);
  return __ldg(reinterpret_cast<const uint4*>(static_cast<const T*>(args.in) + row * args.in_stride + column));
}

}  // namespace pagedcore::cuda
