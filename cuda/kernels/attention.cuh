// Paged attention: one kernel for decode, verification, chunked and whole prefill, over any storage.
//
// A row is a (token, query head) pair. Rows are packed, 16 to a warp, into the tensor cores' M dimension, so that a KV
// head is read once for its whole group of query heads. What is computed for a row never depends on the rows beside it:
//  - a score is one chain of products along the head, in steps of 16;
//  - the running maximum moves every kAttentionPiece positions, after which outputs, and the sum of probabilities as
//  one
//    more column of the same product, are one chain along the context, in steps of 16 tokens;
//  - states are closed every kAttentionChunk positions and merged in ascending order, in registers where an item has
//  the
//    rows' whole context, else by merge_states_kernel.
// Pieces and chunks begin at multiples of the absolute position. A token that a row does not see has probability +0 and
// changes nothing; neither does a piece of such tokens. So tiles, chunks of a prefill, splits of the context, groups of
// sequences with a common prefix, and which of the two shapes computes a row, cannot change its bits. This rests on the
// matrix instruction treating its 16 rows alike and products with zero as nothing, as all tensor cores are seen to do.
//
// Values in the cache are finite: a token whose value is not has NaN keys instead (rope_cache.cuh), so that rows which
// do not see it, and multiply it by zero, stay clean. Slots that no row of the tile sees may hold anything: zeros
// arrive.
//
// Copies: while a piece's scores are computed its values arrive, and during its P V the keys of the next.
#pragma once

#include "kernels/attention_rows.cuh"
#include "kernels/attention_tile.cuh"
#include "kernels/softmax_state.cuh"

namespace pagedcore::cuda {

template <class Shape>
struct Accumulator {
  float acc[Shape::kOutputs][2][4] = {};  // steps along the head, from the warp's column on
};

/// From q k to a score in base 2: scaled, capped and times log2(e).
struct ScoreMap {
  float factor, cap;

  __device__ explicit ScoreMap(const AttentionArgs& args) {
    constexpr float kLog2e = 1.4426950408889634f;
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
  const bool all_seen = piece >= rows.all_begin && piece + kAttentionPiece <= rows.all_end;
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

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, 512 / Shape::kThreads)
    attention_kernel(AttentionArgs args, const AttentionItem* items) {
  using T = typename Shape::T;
  using V = typename Shape::V;
  constexpr int kScores = Shape::kTokens / 8;
  PC_DYNAMIC_SHARED(char, shared);
  auto* slots = reinterpret_cast<TokenSlot(*)[kAttentionPiece]>(shared + Shape::kSlots);
  auto* maxima = reinterpret_cast<float(*)[Shape::kColumnWarps]>(shared + Shape::kMaxima);

  const AttentionItem item = items[blockIdx.x];
  const int kv_head = blockIdx.y;
  const int warp = static_cast<int>(warp_index()), lane = static_cast<int>(lane_index());
  const int first_row = warp / Shape::kColumnWarps * 16, column = warp % Shape::kColumnWarps;
  const WarpRows rows(args, item, kv_head, first_row);
  const ScoreMap map(args);

  int piece = item.begin / kAttentionPiece * kAttentionPiece;
  if (threadIdx.x < kAttentionPiece) slots[0][threadIdx.x] = find_token(args, item, piece + threadIdx.x);
#ifndef PC_MUTATE_SLOTS_BARRIER
  __syncthreads();
#endif
  copy_queries<Shape>(shared, args, item, kv_head);
  copy_piece<Shape>(shared, slots[0], args.kv, kv_head, false);
  cp_async_commit();

  uint32_t q[Shape::kQueryInRegisters ? Shape::kSteps : 1][4];
  StateMax max[2];
  float sum[4] = {};  // columns of a product with ones: all alike
  Accumulator<Shape> out;
  StateMax total_max[2];
  float total_sum[2] = {};
  Accumulator<Shape> total;

  for (int parity = 0; piece < item.end; piece += kAttentionPiece, parity ^= 1) {
    const bool last = piece + kAttentionPiece >= item.end;
#ifndef PC_MUTATE_KEYS_WAIT
    cp_async_wait<0>();
#endif
#ifndef PC_MUTATE_KEYS_BARRIER
    __syncthreads();  // the keys are here; nobody reads the values before them any more
#endif
    copy_piece<Shape>(shared, slots[parity], args.kv, kv_head, true);
    cp_async_commit();
    TokenSlot next{0, -1};
    if (!last && threadIdx.x < kAttentionPiece)
      next = find_token(args, item, piece + kAttentionPiece + static_cast<int>(threadIdx.x));

    if constexpr (Shape::kQueryInRegisters) {
      if (piece <= item.begin) {
#pragma unroll
        for (int k = 0; k < Shape::kSteps; ++k) query_fragment<Shape>(q[k], shared, first_row, k);
      }
    }
    float s[kScores][4] = {};
    if (rows.reaches(piece, kAttentionPiece)) {
#pragma unroll Shape::kQueryInRegisters ? Shape::kSteps : 1
      for (int k = 0; k < Shape::kSteps; ++k) {
        uint32_t(&a)[4] = q[Shape::kQueryInRegisters ? k : 0];
        if constexpr (!Shape::kQueryInRegisters) query_fragment<Shape>(a, shared, first_row, k);
#pragma unroll
        for (int n = 0; n < kScores; n += 2) {
          uint32_t b[2][2];
          key_fragments<Shape>(b, shared, column * Shape::kTokens + n * 8, k);
          mma_m16n8k16<T>(s[n], a, b[0]);
          mma_m16n8k16<T>(s[n + 1], a, b[1]);
        }
      }
    }
    finish_scores<Shape>(s, map, shared, rows, piece, column);

    float top[2] = {-kInfinity, -kInfinity};
#pragma unroll
    for (int n = 0; n < kScores; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) top[i / 2] = fmaxf(top[i / 2], s[n][i]);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      top[i] = fmaxf(top[i], __shfl_xor_sync(kAllLanes, top[i], 1));
      top[i] = fmaxf(top[i], __shfl_xor_sync(kAllLanes, top[i], 2));
      if (lane % 4 == 0) maxima[first_row + lane / 4 + i * 8][column] = top[i];
    }
    if (threadIdx.x < kAttentionPiece) slots[parity ^ 1][threadIdx.x] = next;
#ifndef PC_MUTATE_VALUES_WAIT
    cp_async_wait<0>();
#endif
#ifndef PC_MUTATE_VALUES_BARRIER
    __syncthreads();  // the values, slots and maxima are here; nobody reads the keys any more
#endif
    if (!last) {
      copy_piece<Shape>(shared, slots[parity ^ 1], args.kv, kv_head, false);
      cp_async_commit();
    }

    float shrink[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int w = 0; w < Shape::kColumnWarps; ++w) top[i] = fmaxf(top[i], maxima[first_row + lane / 4 + i * 8][w]);
      const float before = max[i].m;
      max[i].m = fmaxf(before, top[i]);
      shrink[i] = exp2_approx(__fadd_rn(before, -max[i].origin()));
    }
#pragma unroll
    for (int n = 0; n < kScores; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float origin = max[i].origin();
        const int row = first_row + lane / 4 + i * 8, token = column * Shape::kTokens + n * 8 + lane % 4 * 2;
        *reinterpret_cast<uint32_t*>(shared + Shape::kProbabilities + row * Shape::kProbabilityStride + token * 2) =
            pack<V>(exp2_approx(__fadd_rn(s[n][2 * i], -origin)), exp2_approx(__fadd_rn(s[n][2 * i + 1], -origin)));
      }
    }
#ifndef PC_MUTATE_PROBABILITIES_BARRIER
    __syncthreads();  // the probabilities of all tokens are here
#endif

#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] = __fmul_rn(sum[i], shrink[i / 2]);
#pragma unroll
    for (int j = 0; j < Shape::kOutputs; ++j) {
#pragma unroll
      for (int i = 0; i < 8; ++i) out.acc[j][i / 4][i % 4] = __fmul_rn(out.acc[j][i / 4][i % 4], shrink[i % 4 / 2]);
    }
#pragma unroll 1
    for (int t = 0; t < kAttentionPiece; t += 16) {
      if (!rows.reaches(piece + t, 16)) continue;
      uint32_t a[4];
      probability_fragment<Shape>(a, shared, first_row, t);
      const uint32_t ones[2] = {Pair<V>::kOnes, Pair<V>::kOnes};
      mma_m16n8k16<V>(sum, a, ones);
      uint32_t scales[2];
      value_scales<Shape>(scales, shared, t);
#pragma unroll
      for (int j = 0; j < Shape::kOutputs; ++j) {
        const int step = column + j * Shape::kColumnWarps;
        if (Shape::kSteps % Shape::kColumnWarps != 0 && step >= Shape::kSteps) continue;
        uint32_t b[2][2];
        value_fragments<Shape>(b, shared, t, step, scales);
        mma_m16n8k16<V>(out.acc[j][0], a, b[0]);
        mma_m16n8k16<V>(out.acc[j][1], a, b[1]);
      }
    }

    if (!last && (piece + kAttentionPiece) % kAttentionChunk != 0) continue;
      // The end of a chunk: its state goes to memory, or into the total.
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (rows.position[i] < 0) continue;
      const QueryRow query(args, item, kv_head, first_row + lane / 4 + i * 8);
      if (const int first_state = args.row_states[query.row]; first_state >= 0) {
        const int chunk = piece / kAttentionChunk - rows.lowest[i] / kAttentionChunk;
        if (chunk < 0 || piece / kAttentionChunk > rows.position[i] / kAttentionChunk) continue;
        float* state = args.states + (static_cast<int64_t>(first_state + chunk) * args.num_heads + query.head) *
                                         (Shape::kHeadDim + 2);
#pragma unroll
        for (int j = 0; j < Shape::kOutputs; ++j) {
          const int step = column + j * Shape::kColumnWarps;
          if (Shape::kSteps % Shape::kColumnWarps != 0 && step >= Shape::kSteps) continue;
#pragma unroll
          for (int n = 0; n < 2; ++n)
            *reinterpret_cast<float2*>(state + step * 16 + n * 8 + lane % 4 * 2) =
                make_float2(out.acc[j][n][2 * i], out.acc[j][n][2 * i + 1]);
        }
        if (column == 0 && lane % 4 == 0)
          *reinterpret_cast<float2*>(state + Shape::kHeadDim) = make_float2(max[i].m, sum[2 * i]);
        continue;
      }
      const MergeWeights w = merge_weights(total_max[i].m, max[i].m);
      total_max[i].m = w.m;
      total_sum[i] = merge(w, total_sum[i], sum[2 * i]);
#pragma unroll
      for (int j = 0; j < Shape::kOutputs; ++j) {
#pragma unroll
        for (int n = 0; n < 4; ++n)
          total.acc[j][n / 2][2 * i + n % 2] =
              merge(w, total.acc[j][n / 2][2 * i + n % 2], out.acc[j][n / 2][2 * i + n % 2]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] = 0.0f, max[i / 2] = StateMax{};
    out = {};
  }

#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (rows.position[i] < 0) continue;
    const QueryRow query(args, item, kv_head, first_row + lane / 4 + i * 8);
    if (args.row_states[query.row] >= 0) continue;
    const float scale = normalizer(total_sum[i]);
    T* to = static_cast<T*>(args.out) + query.row * args.out_stride + query.head * Shape::kHeadDim + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < Shape::kOutputs; ++j) {
      const int step = column + j * Shape::kColumnWarps;
      if (Shape::kSteps % Shape::kColumnWarps != 0 && step >= Shape::kSteps) continue;
#pragma unroll
      for (int n = 0; n < 2; ++n)
        *reinterpret_cast<uint32_t*>(to + step * 16 + n * 8) =
            pack<T>(__fmul_rn(total.acc[j][n][2 * i], scale), __fmul_rn(total.acc[j][n][2 * i + 1], scale));
    }
  }
}

}  // namespace pagedcore::cuda
