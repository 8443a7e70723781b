// Paged attention on CUDA devices: what a launch takes. Host code.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/kv_tile.hpp"

namespace pagedcore::cuda {

/// The boundaries at which a row's softmax is closed, in absolute positions: part of the result, see attention.cuh.
inline constexpr int kContextPiece = 64;     // the running maximum moves
inline constexpr int kContextSegment = 256;  // the state is closed; states are merged in ascending order

/// Query rows of a tile: (token, query head of the KV head) pairs, the head running fastest. Decode takes narrow tiles,
/// whose rows all warps of a block share; prefill wide ones, with 16 rows to two warps, or to four where heads are
/// long.
inline constexpr int kNarrowTile = 16;
constexpr int attention_wide_tile(int head_dim) { return head_dim > 128 ? 32 : 64; }

/// What q and out are held in; K and V of a 16-bit storage have the same type.
enum class ComputeType : std::uint8_t { f16, bf16 };

/// Work of one block of threads for each KV head: query rows over the context [begin, end).
struct AttentionItem {
  std::int32_t first = 0;  // query row: index into AttentionArgs::rows * query heads per KV head + the head among these
  std::int32_t count = 0;  // query rows, at most those of the tile
  std::int32_t table = 0;  // into the block tables
  std::int32_t begin = 0, end = 0;
};

struct AttentionArgs {
  ComputeType compute = ComputeType::bf16;
  void* out = nullptr;                        // [rows, heads * head_dim], aligned to 16 bytes
  const void* q = nullptr;                    // likewise
  std::int64_t out_stride = 0, q_stride = 0;  // elements, multiples of 8
  KvLayer kv;                                 // its tile has the head_dim of all
  std::int32_t num_heads = 0;                 // a multiple of kv.num_kv_heads
  float scale = 1.0f, softcap = 0.0f;         // as in pagedcore::AttentionParams
  std::int32_t window = 0;
  const float* alibi = nullptr;  // [num_heads] in device memory, or none

  // The batch, and its AttentionPlan (attention_plan.hpp), in device memory.
  const std::uint32_t* tables = nullptr;
  const std::int32_t* positions = nullptr;   // [rows]
  const std::int32_t* rows = nullptr;        // batch rows in the order of the items
  const std::int32_t* row_states = nullptr;  // [rows] where the row's states begin, or -1: closed by its item
  const AttentionItem* narrow = nullptr;
  const AttentionItem* wide = nullptr;
  const std::int32_t* split_rows = nullptr;  // rows whose states are merged at the end
  std::int32_t num_narrow = 0, num_wide = 0, num_split_rows = 0;
  float* states = nullptr;  // [states][heads][attention_state_size(head_dim)]
};

/// Floats of a state: [head_dim] acc, m, l, and as much nothing as makes it whole sectors of memory.
constexpr PC_HOST_DEVICE int attention_state_size(int head_dim) { return head_dim + 8; }
constexpr std::int64_t attention_state_bytes(std::int64_t states, int num_heads, int head_dim) {
  return states * num_heads * attention_state_size(head_dim) * std::int64_t{4};
}

/// At most three launches. A head size without kernels is cudaErrorInvalidValue.
cudaError_t launch_attention(const AttentionArgs& args, cudaStream_t stream);

}  // namespace pagedcore::cuda
