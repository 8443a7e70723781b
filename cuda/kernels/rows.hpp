// Embedding and logits: rows of a decoder outside of its matmuls.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/matmul_layout.hpp"
#include "pagedcore/tensor.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore::cuda {

/// out[r, :] = scale * table[first + tokens[r], :] from a stacked weight of any format, so that the table may be the
/// output matrix's.
struct EmbedArgs {
  float* out = nullptr;  // [rows, k]
  std::int64_t out_stride = 0;
  const TokenId* tokens = nullptr;  // [rows] in device memory, each in [-first, n - first)
  std::int32_t first = 0;
  const std::byte* weights = nullptr;  // packed or plain, 16-byte aligned
  const void* scales = nullptr;
  std::int32_t k_groups_per_scale = 1;
  std::int32_t rows = 0;
  std::int32_t k = 0;
  float scale = 1.0f;
};
cudaError_t launch_embed(const EmbedArgs& args, DType type, WeightFormat format, cudaStream_t stream);

/// x += scale * y.
struct AddArgs {
  float* x = nullptr;        // [rows, cols]
  const float* y = nullptr;  // likewise
  std::int64_t x_stride = 0, y_stride = 0;
  std::int32_t rows = 0;
  std::int32_t cols = 0;
  float scale = 1.0f;
};
cudaError_t launch_add(const AddArgs& args, cudaStream_t stream);

/// out = in, rounded to nearest.
struct ConvertArgs {
  void* out = nullptr;        // [rows, cols] f32, f16 or bf16
  const float* in = nullptr;  // likewise
  std::int64_t out_stride = 0, in_stride = 0;
  std::int32_t rows = 0;
  std::int32_t cols = 0;
};
cudaError_t launch_convert(const ConvertArgs& args, DType out_type, cudaStream_t stream);

/// x = scale * x; then, with softcap > 0, x = softcap * tanh(x / softcap). In place.
struct SoftcapArgs {
  float* x = nullptr;  // [rows, cols]
  std::int64_t stride = 0;
  std::int32_t rows = 0;
  std::int32_t cols = 0;
  float scale = 1.0f;
  float softcap = 0.0f;
};
cudaError_t launch_scale_softcap(const SoftcapArgs& args, cudaStream_t stream);

}  // namespace pagedcore::cuda
