// Paged attention: one kernel for decode, verification, chunked and whole prefill, over any storage.
//
// A row is a (token, query head) pair. Rows are packed, 16 to a warp, into the tensor cores' M dimension, so that a KV
// head is read once for all of its query heads. What is computed for a row never depends on the rows beside it:
//  - a score is one chain of products along the head, in steps of 16;
//  - the running maximum moves every kContextPiece positions; outputs, and the sum of probabilities as one more
//    column of the same product, are one chain along the context, in steps of 16 tokens;
//  - states are closed every kContextSegment positions and merged in ascending order: in registers where an item has
//    the rows' whole context, else by merge_states_kernel.
// Pieces and segments begin at multiples of the absolute position. A token that a row does not see has probability +0
// and changes nothing; neither does a piece of such tokens. So tiles, chunks of a prefill, splits of the context, tiles
// that sequences with a common prefix share, and which of the two shapes computes a row, cannot change its bits.
// This takes for granted that a matrix instruction treats its 16 rows alike, and that a product with zero adds nothing.
//
// Values in the cache are finite: a token whose value is not has NaN keys instead (rope_cache.cuh), so that rows which
// do not see it, and multiply it by zero, stay clean. Slots that no row of the tile sees may hold anything: zeros come.
//
// Copies: while a piece's scores are computed its values arrive, and during its P V the keys of the next.
#pragma once

#include "kernels/attention_rows.cuh"
#include "kernels/attention_tile.cuh"
#include "kernels/softmax_state.cuh"

namespace pagedcore::cuda {

/// The softmax states of a lane's two rows over some context (softmax_state.cuh): of acc, what the lane holds of its
/// warp's steps along the head.
template <class Shape>
struct RowStates {
  StateMax max[2];
  float sum[4] = {};  // of a product with ones, whose columns are alike: rows 0, 0, 8, 8
  float acc[Shape::kOutputs][2][4] = {};
};

/// Whether acc[j] of a warp stands for a step along the head: some warps have one less than others.
template <class Shape>
__device__ constexpr bool has_output(int column, int j) {
  return Shape::kSteps % Shape::kColumnWarps == 0 || column + j * Shape::kColumnWarps < Shape::kSteps;
}

inline constexpr float kLog2e = 1.4426950408889634f;

/// From q k to a score in base 2: scaled, capped and times log2(e).
struct ScoreMap {
  float factor, cap;

  __device__ explicit ScoreMap(const AttentionArgs& args) {
    cap = args.softcap > 0.0f ? args.softcap * kLog2e : 0.0f;
    factor = args.softcap > 0.0f ? 2.0f * kLog2e * args.scale / args.softcap : args.scale * kLog2e;
  }
  __device__ float operator()(float x) const {
    x = __fmul_rn(x, factor);
    // cap tanh(y) = cap - 2 cap / (1 + e^2y)
    return cap > 0.0f ? __fadd_rn(cap, -__fdividef(2.0f * cap, __fadd_rn(1.0f, exp2_approx(x)))) : x;
  }
};

/// Scores of the warp's tokens, those that a row does not see minus infinity.
template <class Shape>
__device__ void finish_scores(float (&s)[Shape::kTokens / 8][4], const ScoreMap& map, const char* shared,
                              const WarpRows& rows, int piece, int column) {
  const int first = column * Shape::kTokens + lane_index() % 4 * 2;  // in the piece
  const bool all_seen = piece >= rows.all_begin && piece + kContextPiece <= rows.all_end;
#pragma unroll
  for (int n = 0; n < Shape::kTokens / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = first + n * 8 + i % 2;
      float x = s[n][i];
      if constexpr (Shape::kQuantized)
        x = __fmul_rn(x, reinterpret_cast<const float*>(shared + Shape::kKeyScales)[token]);
      s[n][i] = all_seen || rows.sees(i / 2, piece + token) ? map(x) : -kInfinity;
    }
  }
}

/// ALiBi: takes from finished scores what their tokens' distance costs. A pass of its own, so that kernels without it
/// hold no register for it.
template <class Shape>
__device__ void subtract_distances(float (&s)[Shape::kTokens / 8][4], const AttentionArgs& args,
                                   const AttentionItem& item, int kv_head, int first_row, int first) {
  const int lane = static_cast<int>(lane_index());
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = first_row + lane / 4 + i * 8;
    if (row >= item.count) continue;
    const QueryRow query(args, item, kv_head, row);
    const float slope = __fmul_rn(args.alibi[query.head], kLog2e);
    const int position = args.positions[query.row];
#pragma unroll
    for (int n = 0; n < Shape::kTokens / 8; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int token = first + lane % 4 * 2 + n * 8 + j;
        s[n][2 * i + j] = __fadd_rn(s[n][2 * i + j], __fmul_rn(slope, static_cast<float>(token - position)));
      }
    }
  }
}

/// q K of the warp's 16 rows and its tokens of the piece.
template <class Shape>
__device__ void multiply_keys(float (&s)[Shape::kTokens / 8][4], uint32_t (&q)[Shape::kQueryFragments][4],
                              const char* shared, int first_row, int column) {
#pragma unroll Shape::kQueryInRegisters ? Shape::kSteps : 1
  for (int k = 0; k < Shape::kSteps; ++k) {
    uint32_t(&a)[4] = q[Shape::kQueryInRegisters ? k : 0];
    if constexpr (!Shape::kQueryInRegisters) query_fragment<Shape>(a, shared, first_row, k);
#pragma unroll
    for (int n = 0; n < Shape::kTokens / 8; n += 2) {
      uint32_t b[2][2];
      key_fragments<Shape>(b, shared, column * Shape::kTokens + n * 8, k);
      mma_m16n8k16<typename Shape::T>(s[n], a, b[0]);
      mma_m16n8k16<typename Shape::T>(s[n + 1], a, b[1]);
    }
  }
}

/// Shrinks the states to the new maximum and stores the probabilities of the warp's tokens under it.
template <class Shape>
__device__ void move_maximum(RowStates<Shape>& state, char* shared, const float (&s)[Shape::kTokens / 8][4],
                             int first_row, int column) {
  const auto* maxima = reinterpret_cast<const float(*)[Shape::kColumnWarps]>(shared + Shape::kMaxima);
  const int lane = static_cast<int>(lane_index());
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = first_row + lane / 4 + i * 8;
    const float before = state.max[i].m;
#pragma unroll
    for (int w = 0; w < Shape::kColumnWarps; ++w) state.max[i].m = fmaxf(state.max[i].m, maxima[row][w]);
    const float origin = state.max[i].origin(), shrink = exp2_approx(__fadd_rn(before, -origin));
    state.sum[2 * i] = __fmul_rn(state.sum[2 * i], shrink);
    state.sum[2 * i + 1] = __fmul_rn(state.sum[2 * i + 1], shrink);
#pragma unroll
    for (int j = 0; j < Shape::kOutputs; ++j) {
#pragma unroll
      for (int n = 0; n < 4; ++n)
        state.acc[j][n / 2][2 * i + n % 2] = __fmul_rn(state.acc[j][n / 2][2 * i + n % 2], shrink);
    }
#pragma unroll
    for (int n = 0; n < Shape::kTokens / 8; ++n) {
      const int token = column * Shape::kTokens + n * 8 + lane % 4 * 2;
      *reinterpret_cast<uint32_t*>(shared + Shape::kProbabilities + row * Shape::kProbabilityStride + token * 2) =
          pack<typename Shape::V>(exp2_approx(__fadd_rn(s[n][2 * i], -origin)),
                                  exp2_approx(__fadd_rn(s[n][2 * i + 1], -origin)));
    }
  }
}

/// P V, and the sum of P, over the piece.
template <class Shape>
__device__ void multiply_values(RowStates<Shape>& state, const char* shared, const WarpRows& rows, int piece,
                                int first_row, int column) {
  using V = typename Shape::V;
#pragma unroll 1
  for (int t = 0; t < kContextPiece; t += 16) {
    if (!rows.reaches(piece + t, 16)) continue;
    uint32_t a[4], scales[2];
    probability_fragment<Shape>(a, shared, first_row, t);
    const uint32_t ones[2] = {Pair<V>::kOnes, Pair<V>::kOnes};
    mma_m16n8k16<V>(state.sum, a, ones);
    value_scales<Shape>(scales, shared, t);
#pragma unroll
    for (int j = 0; j < Shape::kOutputs; ++j) {
      if (!has_output<Shape>(column, j)) continue;
      uint32_t b[2][2];
      value_fragments<Shape>(b, shared, t, column + j * Shape::kColumnWarps, scales);
      mma_m16n8k16<V>(state.acc[j][0], a, b[0]);
      mma_m16n8k16<V>(state.acc[j][1], a, b[1]);
    }
  }
}

/// Row i's state of a segment, to memory.
template <class Shape>
__device__ void store_state(float* to, const RowStates<Shape>& state, int i, int column) {
  const int lane = static_cast<int>(lane_index());
#pragma unroll
  for (int j = 0; j < Shape::kOutputs; ++j) {
    if (!has_output<Shape>(column, j)) continue;
#pragma unroll
    for (int n = 0; n < 2; ++n)
      *reinterpret_cast<float2*>(to + (column + j * Shape::kColumnWarps) * 16 + n * 8 + lane % 4 * 2) =
          make_float2(state.acc[j][n][2 * i], state.acc[j][n][2 * i + 1]);
  }
  if (column == 0 && lane % 4 == 0)
    *reinterpret_cast<float2*>(to + Shape::kHeadDim) = make_float2(state.max[i].m, state.sum[2 * i]);
}

/// total = total, then the segment after it, for row i.
template <class Shape>
__device__ void merge_state(RowStates<Shape>& total, const RowStates<Shape>& segment, int i) {
  const MergeWeights w = merge_weights(total.max[i].m, segment.max[i].m);
  total.max[i].m = w.m;
  total.sum[2 * i] = merge(w, total.sum[2 * i], segment.sum[2 * i]);
#pragma unroll
  for (int j = 0; j < Shape::kOutputs; ++j) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      float& x = total.acc[j][n / 2][2 * i + n % 2];
      x = merge(w, x, segment.acc[j][n / 2][2 * i + n % 2]);
    }
  }
}

/// Row i of the output, to `to`, or nowhere where that is null. All lanes take part: neighbours exchange halves of
/// their pairs, so that a lane has four elements in a row and its quarter of a warp fills a sector of 32 bytes at once.
template <class Shape>
__device__ void store_output(typename Shape::T* to, const RowStates<Shape>& total, int i, int column) {
  const float scale = normalizer(total.sum[2 * i]);
  const unsigned lane = lane_index(), odd = lane % 2;
#pragma unroll
  for (int j = 0; j < Shape::kOutputs; ++j) {
    if (!has_output<Shape>(column, j)) continue;
    uint32_t pairs[2];
#pragma unroll
    for (int n = 0; n < 2; ++n)
      pairs[n] = pack<typename Shape::T>(__fmul_rn(total.acc[j][n][2 * i], scale),
                                         __fmul_rn(total.acc[j][n][2 * i + 1], scale));
    const uint32_t other = __shfl_xor_sync(kAllLanes, odd ? pairs[0] : pairs[1], 1);
    const uint2 four = make_uint2(odd ? other : pairs[0], odd ? pairs[1] : other);
    if (to != nullptr)
      *reinterpret_cast<uint2*>(to + (column + j * Shape::kColumnWarps) * 16 + odd * 8 + lane % 4 / 2 * 4) = four;
  }
}

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, 512 / Shape::kThreads)
    attention_kernel(AttentionArgs args, const AttentionItem* items) {
  PC_DYNAMIC_SHARED(char, shared);
  auto* slots = reinterpret_cast<TokenSlot(*)[kContextPiece]>(shared + Shape::kSlots);
  auto* maxima = reinterpret_cast<float(*)[Shape::kColumnWarps]>(shared + Shape::kMaxima);

  const AttentionItem item = items[blockIdx.x];
  const int kv_head = blockIdx.y;
  const int warp = static_cast<int>(warp_index()), lane = static_cast<int>(lane_index());
  const int first_row = warp / Shape::kColumnWarps * 16, column = warp % Shape::kColumnWarps;
  const WarpRows rows(args, item, kv_head, first_row);
  const ScoreMap map(args);

  int piece = item.begin / kContextPiece * kContextPiece;
  if (threadIdx.x < kContextPiece) slots[0][threadIdx.x] = find_token(args, item, piece + threadIdx.x);
  __syncthreads();
  copy_queries<Shape>(shared, args, item, kv_head);
  copy_piece<Shape>(shared, slots[0], args.kv, kv_head, false);
  cp_async_commit();

  uint32_t q[Shape::kQueryFragments][4];
  RowStates<Shape> state, total;  // of the segment; of the segments before it
  for (int parity = 0; piece < item.end; piece += kContextPiece, parity ^= 1) {
    const bool last = piece + kContextPiece >= item.end;
    cp_async_wait<0>();
    __syncthreads();  // the keys are here; nobody reads the values before them any more
    copy_piece<Shape>(shared, slots[parity], args.kv, kv_head, true);
    cp_async_commit();
    TokenSlot next{0, -1};
    if (!last && threadIdx.x < kContextPiece)
      next = find_token(args, item, piece + kContextPiece + static_cast<int>(threadIdx.x));

    if (Shape::kQueryInRegisters && piece <= item.begin) {
#pragma unroll
      for (int k = 0; k < Shape::kQueryFragments; ++k) query_fragment<Shape>(q[k], shared, first_row, k);
    }
    float s[Shape::kTokens / 8][4] = {};
    if (rows.reaches(piece, kContextPiece)) multiply_keys<Shape>(s, q, shared, first_row, column);
    finish_scores<Shape>(s, map, shared, rows, piece, column);
    if (args.alibi != nullptr)
      subtract_distances<Shape>(s, args, item, kv_head, first_row, piece + column * Shape::kTokens);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float top = -kInfinity;
#pragma unroll
      for (int n = 0; n < Shape::kTokens / 8; ++n) top = fmaxf(top, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
      if (lane % 4 == 0) maxima[first_row + lane / 4 + i * 8][column] = top;
    }
    if (threadIdx.x < kContextPiece) slots[parity ^ 1][threadIdx.x] = next;
    cp_async_wait<0>();
    __syncthreads();  // the values, slots and maxima are here; nobody reads the keys any more
    if (!last) {
      copy_piece<Shape>(shared, slots[parity ^ 1], args.kv, kv_head, false);
      cp_async_commit();
    }

    move_maximum<Shape>(state, shared, s, first_row, column);
    __syncthreads();  // the probabilities of all tokens are here
    multiply_values<Shape>(state, shared, rows, piece, first_row, column);

    if (!last && (piece + kContextPiece) % kContextSegment != 0) continue;
    const int segment = piece / kContextSegment;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (rows.position[i] < 0) continue;
      const QueryRow query(args, item, kv_head, first_row + lane / 4 + i * 8);
      const int first_state = args.row_states[query.row], first_segment = rows.lowest[i] / kContextSegment;
      if (first_state < 0) {
        merge_state<Shape>(total, state, i);
      } else if (segment >= first_segment && segment <= rows.position[i] / kContextSegment) {
        const int64_t index = static_cast<int64_t>(first_state + segment - first_segment) * args.num_heads + query.head;
        store_state<Shape>(args.states + index * attention_state_size(Shape::kHeadDim), state, i, column);
      }
    }
    state = {};
  }

#pragma unroll
  for (int i = 0; i < 2; ++i) {
    typename Shape::T* to = nullptr;
    if (rows.position[i] >= 0) {
      const QueryRow query(args, item, kv_head, first_row + lane / 4 + i * 8);
      if (args.row_states[query.row] < 0)
        to = static_cast<typename Shape::T*>(args.out) + query.row * args.out_stride + query.head * Shape::kHeadDim;
    }
    store_output<Shape>(to, total, i, column);
  }
}

}  // namespace pagedcore::cuda
