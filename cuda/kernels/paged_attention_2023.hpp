// The attention kernel of the PagedAttention paper (SOSP 2023), section 5.1: a second, simple implementation. Host
// code.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/attention.hpp"

namespace pagedcore::cuda {

/// One query token of every sequence. With x = 8 elements (16 bytes): keys are [blocks][kv heads][head_dim / x]
/// [block_size][x], values [blocks][kv heads][head_dim][block_size].
struct PagedAttention2023Args {
  ComputeType compute = ComputeType::f16;  // of everything
  void* out = nullptr;                     // [sequences, heads, head_dim]
  const void* q = nullptr;                 // the same
  const void* k_cache = nullptr;
  const void* v_cache = nullptr;
  const std::uint32_t* tables = nullptr;       // [sequences, max_blocks]
  const std::int32_t* context_lens = nullptr;  // [sequences]; the output of an empty one is zero
  std::int32_t num_sequences = 0, num_heads = 0, num_kv_heads = 0;
  std::int32_t head_dim = 0;    // a multiple of 16 up to 256
  std::int32_t block_size = 0;  // 8, 16 or 32
  std::int32_t max_blocks = 0;
  std::int32_t max_context_len = 0;  // at most kPagedAttention2023MaxContext: logits lie in shared memory
  float scale = 1.0f;
};

inline constexpr int kPagedAttention2023MaxContext = 8192;

cudaError_t launch_paged_attention_2023(const PagedAttention2023Args& args, cudaStream_t stream);

}  // namespace pagedcore::cuda
