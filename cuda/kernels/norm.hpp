// Normalisation of rows, and of the heads of rows. One order of every sum, whatever the batch.
//
// A residual needs no kernel here: the matmul before it accumulates into the f32 stream that the norm then reads.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "pagedcore/backend.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore::cuda {

/// out[r, :] = norm(in[r, :]) * (weight + weight_offset) + bias. Strides in elements; out may be in.
struct NormArgs {
  const float* in = nullptr;  // [rows, cols]
  std::int64_t in_stride = 0;
  void* out = nullptr;  // f32, f16 or bf16
  std::int64_t out_stride = 0;
  const float* weight = nullptr;  // [cols]
  const float* bias = nullptr;    // [cols], or none
  std::int32_t rows = 0;
  std::int32_t cols = 0;
  NormParams params;
};
cudaError_t launch_norm(const NormArgs& args, DType out_type, cudaStream_t stream);

/// The same over each `head_dim` consecutive columns, in place; weight and bias are [head_dim], or, `own_weights`, one
/// head's after another's.
struct HeadNormArgs {
  float* x = nullptr;  // [rows, heads * head_dim]
  std::int64_t stride = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;  // or none
  bool own_weights = false;
  std::int32_t rows = 0;
  std::int32_t heads = 0;
  std::int32_t head_dim = 0;
  NormParams params;
};
cudaError_t launch_head_norm(const HeadNormArgs& args, cudaStream_t stream);

}  // namespace pagedcore::cuda
