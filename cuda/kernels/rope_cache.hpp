// Rotary embedding of q and k with the write of K and V into the paged cache. Host code.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/attention.hpp"

namespace pagedcore::cuda {

/// cos and sin of every row's angles, times `magnitude`: made once a step for all layers.
struct RotaryTableArgs {
  float* cos = nullptr;  // [rows][num_frequencies]
  float* sin = nullptr;
  const float* inv_freq = nullptr;          // [num_frequencies]
  const std::int32_t* positions = nullptr;  // [rows]
  std::int32_t rows = 0, num_frequencies = 0;
  float magnitude = 1.0f;
};
cudaError_t launch_rotary_table(const RotaryTableArgs& args, cudaStream_t stream);

/// See Backend::rope_and_cache. Dimension i pairs with i + num_frequencies; without frequencies nothing is rotated.
struct RopeCacheArgs {
  ComputeType compute = ComputeType::bf16;
  void* q = nullptr;                          // [rows, heads * head_dim] of `compute`, aligned to 16 bytes
  const float* qkv = nullptr;                 // [rows, (heads + 2 kv heads) * head_dim], aligned to 16 bytes
  std::int64_t q_stride = 0, qkv_stride = 0;  // elements, multiples of 8 and 4
  KvLayer kv;                                 // a 16-bit tile is of type `compute`
  std::int32_t num_heads = 0;
  const std::uint32_t* tables = nullptr;
  const std::int32_t* row_tables = nullptr;  // [rows] where the table of the row's sequence begins
  const std::int32_t* positions = nullptr;   // [rows]
  const float* cos = nullptr;                // of RotaryTableArgs
  const float* sin = nullptr;
  std::int32_t rows = 0, num_frequencies = 0;
};
/// Head sizes are multiples of 16 up to 256.
cudaError_t launch_rope_and_cache(const RopeCacheArgs& args, cudaStream_t stream);

}  // namespace pagedcore::cuda
