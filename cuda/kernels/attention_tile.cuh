// What the attention kernel keeps in shared memory: its shape, the copies that fill it, and the matrix fragments read
// from it.
#pragma once

#include "kernels/attention_rows.cuh"
#include "kernels/element.cuh"
#include "kernels/ptx.cuh"

namespace pagedcore::cuda {

/// One compiled kernel: T of q and out, kKv of the storage, and its kRowWarps * kColumnWarps warps. Row warps have 16
/// query rows each; column warps share rows, and divide the tokens of a piece for q K and the head for P V.
template <typename T_, KvType kKv_, int kHeadDim_, int kRowWarps_, int kColumnWarps_>
struct AttentionShape {
  using T = T_;
  static constexpr KvType kKv = kKv_;
  static constexpr int kHeadDim = kHeadDim_, kRowWarps = kRowWarps_, kColumnWarps = kColumnWarps_;
  static constexpr bool kQuantized = is_quantized(kKv);
  /// Of P V: 8-bit values are widened and scaled to bf16, which has the range for it.
  using V = std::conditional_t<kQuantized, __nv_bfloat16, T>;

  static constexpr int kThreads = 32 * kRowWarps * kColumnWarps;
  static constexpr int kRows = 16 * kRowWarps;
  static constexpr int kSteps = kHeadDim / 16;                                 // of 16 elements along a head
  static constexpr int kTokens = kContextPiece / kColumnWarps;               // of a piece, scored by one warp
  static constexpr int kOutputs = (kSteps + kColumnWarps - 1) / kColumnWarps;  // steps along a head, of one warp's acc
  static constexpr bool kQueryInRegisters = kRowWarps == 1 && kHeadDim <= 128;
  static constexpr int kQueryFragments = kQueryInRegisters ? kSteps : 1;
  static_assert(kHeadDim % 16 == 0 && kTokens % 16 == 0);

  // Strides in bytes, of an odd number of 16 bytes: the eight rows of a matrix lie in different banks.
  static constexpr int odd_stride(int bytes) { return (bytes / 16 | 1) * 16; }
  static constexpr int kKvBytes = kHeadDim * element_bytes(kKv);
  static constexpr int kKvStride = odd_stride(kKvBytes);
  static constexpr int kQueryBytes = kHeadDim * 2;
  static constexpr int kQueryStride = odd_stride(kQueryBytes);
  static constexpr int kProbabilityStride = odd_stride(kContextPiece * 2);

  // The dynamic shared memory.
  static constexpr int kKeys = 0;
  static constexpr int kValues = kKeys + kContextPiece * kKvStride;
  static constexpr int kQueries = kValues + kContextPiece * kKvStride;
  static constexpr int kSlots = kQueries + kRows * kQueryStride;  // of this piece and the next
  static constexpr int kKeyScales = kSlots + 2 * kContextPiece * 8;
  static constexpr int kValueScales = kKeyScales + (kQuantized ? kContextPiece * 4 : 0);
  static constexpr int kProbabilities = kValueScales + (kQuantized ? kContextPiece * 4 : 0);
  static constexpr int kMaxima = kProbabilities + kRows * kProbabilityStride;
  static constexpr int kSharedBytes = kMaxima + kRows * kColumnWarps * 4;
};

/// Where a token of the context is stored; not at all where slot is negative.
struct TokenSlot {
  uint32_t block;
  int32_t slot;
};

__device__ inline TokenSlot find_token(const AttentionArgs& args, const AttentionItem& item, int token) {
  if (token < item.begin || token >= item.end) return {0, -1};
  const int block_size = args.kv.tile.block_size;
  return {args.tables[item.table + token / block_size], token % block_size};
}

/// Starts the copy of a piece's keys (or values) and their scales; tokens without a token slot become zeros.
template <class Shape>
__device__ void copy_piece(char* shared, const TokenSlot* slots, const KvLayer& kv, int kv_head, bool values) {
  constexpr int kVectors = Shape::kKvBytes / 16;
  char* rows = shared + (values ? Shape::kValues : Shape::kKeys);
#pragma unroll 1
  for (int i = threadIdx.x; i < kContextPiece * kVectors; i += Shape::kThreads) {
    const int token = i / kVectors, at = i % kVectors * 16;
    const TokenSlot from = slots[token];
    const auto* tile =
        reinterpret_cast<const char*>(kv.data) + kv.tile_offset(from.block, kv_head) + (values ? kv.tile.bytes() : 0);
    cp_async16_zfill(rows + token * Shape::kKvStride + at, tile + from.slot * Shape::kKvBytes + at, from.slot >= 0);
  }
  if constexpr (Shape::kQuantized) {
    auto* scales = reinterpret_cast<float*>(shared + (values ? Shape::kValueScales : Shape::kKeyScales));
    for (int token = threadIdx.x; token < kContextPiece; token += Shape::kThreads) {
      const TokenSlot from = slots[token];
      const auto* tile =
          reinterpret_cast<const char*>(kv.data) + kv.tile_offset(from.block, kv_head) + (values ? kv.tile.bytes() : 0);
      cp_async4_zfill(scales + token, tile + kv.tile.scales_offset() + from.slot * 4, from.slot >= 0);
    }
  }
}

/// Starts the copy of the item's query rows; rows past its count become zeros.
template <class Shape>
__device__ void copy_queries(char* shared, const AttentionArgs& args, const AttentionItem& item, int kv_head) {
  constexpr int kVectors = Shape::kQueryBytes / 16;
#pragma unroll 1
  for (int i = threadIdx.x; i < Shape::kRows * kVectors; i += Shape::kThreads) {
    const int row = i / kVectors, at = i % kVectors * 16;
    const bool valid = row < item.count;
    const QueryRow query(args, item, kv_head, valid ? row : 0);
    const auto* from =
        static_cast<const typename Shape::T*>(args.q) + query.row * args.q_stride + query.head * Shape::kHeadDim;
    cp_async16_zfill(shared + Shape::kQueries + row * Shape::kQueryStride + at,
                     reinterpret_cast<const char*>(from) + at, valid);
  }
}

/// Rows [row, row + 16) of q at step `step` along the head.
template <class Shape>
__device__ void query_fragment(uint32_t (&a)[4], const char* shared, int row, int step) {
  const unsigned lane = lane_index();
  ldmatrix_x4(a, shared + Shape::kQueries + (row + lane % 16) * Shape::kQueryStride + step * 32 + lane / 16 * 16);
}

/// Probabilities of 16 rows and 16 tokens, which the warps of the rows stored.
template <class Shape>
__device__ void probability_fragment(uint32_t (&a)[4], const char* shared, int row, int token) {
  const unsigned lane = lane_index();
  ldmatrix_x4(
      a, shared + Shape::kProbabilities + (row + lane % 16) * Shape::kProbabilityStride + token * 2 + lane / 16 * 16);
}

/// Keys of tokens [token, token + 16) of the piece at step `step` along the head, for two products of 8 tokens.
template <class Shape>
__device__ void key_fragments(uint32_t (&b)[2][2], const char* shared, int token, int step) {
  const unsigned lane = lane_index();
  if constexpr (Shape::kQuantized) {
    uint32_t bytes[2];
    ldmatrix_x2(bytes, shared + Shape::kKeys + (token + lane % 16) * Shape::kKvStride + step * 16);
    for (int i = 0; i < 2; ++i) {
      b[i][0] = widen<Shape::kKv, typename Shape::T>(bytes[i], false);
      b[i][1] = widen<Shape::kKv, typename Shape::T>(bytes[i], true);
    }
  } else {
    uint32_t r[4];
    ldmatrix_x4(r, shared + Shape::kKeys + (token + lane % 8 + lane / 16 * 8) * Shape::kKvStride + step * 32 +
                       lane / 8 % 2 * 16);
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
  }
}

/// Scales of the values of tokens [token, token + 16), in pairs as the values' fragments hold them.
template <class Shape>
__device__ void value_scales(uint32_t (&scales)[2], const char* shared, int token) {
  if constexpr (Shape::kQuantized) {
    const auto* from = reinterpret_cast<const float*>(shared + Shape::kValueScales) + token + lane_index() % 4 * 2;
    scales[0] = pack<__nv_bfloat16>(from[0], from[1]);
    scales[1] = pack<__nv_bfloat16>(from[8], from[9]);
  }
}

/// Values of tokens [token, token + 16) at step `step` along the head, for two products of 8 elements.
template <class Shape>
__device__ void value_fragments(uint32_t (&b)[2][2], const char* shared, int token, int step,
                                const uint32_t (&scales)[2]) {
  const unsigned lane = lane_index();
  if constexpr (Shape::kQuantized) {
    uint32_t bytes[2];
    ldmatrix_x2_trans(bytes, shared + Shape::kValues + (token + lane % 16) * Shape::kKvStride + step * 16);
    for (int i = 0; i < 2; ++i) {
      b[0][i] = multiply<__nv_bfloat16>(widen<Shape::kKv, __nv_bfloat16>(bytes[i], false), scales[i]);
      b[1][i] = multiply<__nv_bfloat16>(widen<Shape::kKv, __nv_bfloat16>(bytes[i], true), scales[i]);
    }
  } else {
    uint32_t r[4];
    ldmatrix_x4_trans(r, shared + Shape::kValues + (token + lane % 16) * Shape::kKvStride + step * 32 + lane / 16 * 16);
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
  }
}

}  // namespace pagedcore::cuda
