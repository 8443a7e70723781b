// The attention kernel, written once over a Steps policy and compiled once per instruction set.
//
// K tile of 16 tokens:  one 64-byte vector per step, a lane per token. f32: step = dimension; bf16: step = pair of
// them. V tile of 16 tokens:  one row of value_dim lanes per step, a lane per output. f32: step = token; bf16: pair of
// them. So scores and outputs are both "broadcast a scalar (or pair), multiply-add a vector", and each lane is one
// fixed chain along the head (scores) or along the context (outputs): how rows and tiles are blocked into registers
// cannot change a bit. Tokens that a row does not see have score -inf and probability +0: they change nothing either,
// so a row's bits do not depend on the tile around it.
#pragma once

#include "cpu/attention/kernel.hpp"
#include "cpu/attention/widen.hpp"

namespace pagedcore::cpu::attention_detail {
namespace {

constexpr float kLaneNumbers[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

template <class Steps>
struct AttentionKernel {
  using S = typename Steps::Simd;
  using F = typename S::F;
  using Operand = typename Steps::Operand;

  static constexpr int kVecBytes = 64;
  static constexpr int kMaxRows = Steps::kMaxRows;
  static constexpr int kVSteps = kTileTokens / Steps::kElements;        // steps of a V tile
  static constexpr int kPTileBytes = kVSteps * Steps::kBroadcastBytes;  // probabilities of a tile
  static constexpr int at_most(int limit, int n) { return n < 1 ? 1 : n < limit ? n : limit; }

  template <int MR>
  struct Rows {
    F s[MR][kPieceTiles];
    alignas(64) char p[MR][kPieceTiles * kPTileBytes];
    alignas(64) float correction[kLanes];
  };

  // s[r][tile + b] = q[r] . k of NB tiles
  template <int MR, int NB>
  static inline __attribute__((always_inline)) void dot(const PieceTask& t, int row, int tile, Rows<MR>& w) {
    F a[MR][NB];
    const char* q[MR];
    const char* k[NB];
    const char* next[NB];
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      q[r] = t.q[row + r];
#pragma GCC unroll 8
      for (int b = 0; b < NB; ++b) a[r][b] = S::zero();
    }
#pragma GCC unroll 8
    for (int b = 0; b < NB; ++b) {
      k[b] = t.k[tile + b];
      next[b] = t.next_k[tile + b];
    }
    const int steps = t.key_dim / Steps::kElements;
    for (int i = 0; i < steps; ++i) {
      Operand x[NB];
#pragma GCC unroll 8
      for (int b = 0; b < NB; ++b) {
        x[b] = Steps::load(k[b] + i * kVecBytes);
        __builtin_prefetch(next[b] + i * kVecBytes);
      }
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        const auto scalar = Steps::broadcast(q[r] + i * Steps::kBroadcastBytes);
#pragma GCC unroll 8
        for (int b = 0; b < NB; ++b) a[r][b] = Steps::multiply_add(scalar, x[b], a[r][b]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
      for (int b = 0; b < NB; ++b) w.s[r][tile + b] = a[r][b];
    }
  }

  // Scales (or caps), biases and masks the scores of one row. Returns their maximum, lane by lane.
  template <bool kWhole, int MR>
  static inline F finish_scores(const PieceTask& t, int row, int r, int g0, int g1, Rows<MR>& w) {
    F top = S::set1(-__builtin_inff());
    const F lanes = S::load(kLaneNumbers);
    for (int g = kWhole ? 0 : g0; g < (kWhole ? kPieceTiles : g1); ++g) {
      F x = w.s[r][g];
      if (t.softcap == 0.0f) {
        x = S::mul(x, S::set1(t.scale));
      } else {  // c tanh(y) = c - 2c / (1 + exp(2y))
        const F e = S::exp2(S::mul(x, S::set1(t.inv_softcap)));
        const F cap = S::set1(t.softcap);
        x = S::sub(cap, S::div(S::add(cap, cap), S::add(S::set1(1.0f), e)));
      }
      const int start = t.position + g * kTileTokens;
      if (t.slopes) x = S::fma(S::set1(t.slopes[row]), S::add(S::set1((float)(start - t.end[row] + 1)), lanes), x);
      if (!kWhole) x = S::keep(x, t.begin[row] - start, t.end[row] - start);
      w.s[r][g] = x;
      top = S::max(x, top);
    }
    return top;
  }

  static inline F exponential(F score, F base, char* p) {
    const F e = S::exp2(S::sub(score, base));
    Steps::store_probabilities(p, e);
    return e;
  }

  // Scores of n rows to probabilities; updates their maxima and sums.
  template <int MR>
  static inline void softmax(const PieceTask& t, int row, int n, int g0, int g1, Rows<MR>& w) {
    static_assert(MR <= kLanes);
    alignas(64) float old[kLanes] = {}, base[kLanes] = {};
    for (int r = 0; r < n; ++r) {
      const bool whole = g0 == 0 && g1 == kPieceTiles && t.begin[row + r] <= t.position &&
                         t.end[row + r] >= t.position + kContextPiece;
      const float top = S::reduce_max(whole ? finish_scores<true>(t, row + r, r, g0, g1, w)
                                            : finish_scores<false>(t, row + r, r, g0, g1, w));
      old[r] = t.m[row + r];
      const float now = top > old[r] ? top : old[r];
      t.m[row + r] = now;
      base[r] = now == -__builtin_inff() ? 0.0f : now;
    }
    // Exactly 1 where the maximum stayed; 0 where nothing was seen before, and the sums are 0.
    S::store(w.correction, S::exp2(S::sub(S::load(old), S::load(base))));
    for (int r = 0; r < n; ++r) {
      const F b = S::set1(base[r]);
      const F* s = w.s[r];
      char* p = w.p[r];
      F e[kPieceTiles];
      if (g0 == 0 && g1 == kPieceTiles) {
        e[0] = exponential(s[0], b, p);
        e[1] = exponential(s[1], b, p + kPTileBytes);
        e[2] = exponential(s[2], b, p + 2 * kPTileBytes);
        e[3] = exponential(s[3], b, p + 3 * kPTileBytes);
      } else {
        for (int g = 0; g < kPieceTiles; ++g)
          e[g] = g < g0 || g >= g1 ? S::zero() : exponential(s[g], b, p + g * kPTileBytes);
      }
      const float sum = S::reduce_add(S::add(S::add(e[0], e[1]), S::add(e[2], e[3])));
      t.l[row + r] = t.l[row + r] * w.correction[r] + sum;
    }
  }

  // acc[:, column vectors [j, j + NV)] = acc * correction + P V
  template <int MR, int NV>
  static inline __attribute__((always_inline)) void accumulate(const PieceTask& t, int row, int j, int g0, int g1,
                                                               const Rows<MR>& w) {
    F a[MR][NV];
    float* acc = t.acc + row * t.value_dim + j * kLanes;
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      const F c = S::set1(w.correction[r]);
#pragma GCC unroll 8
      for (int n = 0; n < NV; ++n) a[r][n] = S::mul(S::load(acc + r * t.value_dim + n * kLanes), c);
    }
    const int stride = t.value_dim * 4;
    for (int g = g0; g < g1; ++g) {
      const char* v = t.v[g] + j * kVecBytes;
      const char* next = t.next_v[g] + j * kVecBytes;
      for (int i = 0; i < kVSteps; ++i, v += stride, next += stride) {
        Operand x[NV];
#pragma GCC unroll 8
        for (int n = 0; n < NV; ++n) {
          x[n] = Steps::load(v + n * kVecBytes);
          __builtin_prefetch(next + n * kVecBytes);
        }
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r) {
          const auto p = Steps::broadcast(w.p[r] + g * kPTileBytes + i * Steps::kBroadcastBytes);
#pragma GCC unroll 8
          for (int n = 0; n < NV; ++n) a[r][n] = Steps::multiply_add(p, x[n], a[r][n]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
      for (int n = 0; n < NV; ++n) S::store(acc + r * t.value_dim + n * kLanes, a[r][n]);
    }
  }

  // The tiles [g0, g1) that some of `n` rows sees.
  static inline void visible_tiles(const PieceTask& t, int row, int n, int& g0, int& g1) {
    int begin = t.begin[row], end = t.end[row];
    for (int r = 1; r < n; ++r) {
      if (t.begin[row + r] < begin) begin = t.begin[row + r];
      if (t.end[row + r] > end) end = t.end[row + r];
    }
    g0 = t.first_tile;
    g1 = t.end_tile;
    while (g0 < g1 && t.position + (g0 + 1) * kTileTokens <= begin) ++g0;
    while (g0 < g1 && t.position + (g1 - 1) * kTileTokens >= end) --g1;
  }

  template <int MR>
  static void rows(const PieceTask& t, int row) {
    int g0, g1;
    visible_tiles(t, row, MR, g0, g1);
    if (g0 == g1) return;

    Rows<MR> w;
    constexpr int kBlock = at_most(kPieceTiles, Steps::kAccumulators / MR);
    int g = g0;
    for (; g + kBlock <= g1; g += kBlock) dot<MR, kBlock>(t, row, g, w);
    if constexpr (kBlock > 2) {
      for (; g + 2 <= g1; g += 2) dot<MR, 2>(t, row, g, w);
    }
    if constexpr (kBlock > 1) {
      for (; g < g1; ++g) dot<MR, 1>(t, row, g, w);
    }
    softmax<MR>(t, row, MR, g0, g1, w);

    constexpr int kColumns = at_most(8, Steps::kAccumulators / MR);
    const int columns = t.value_dim / kLanes;
    int j = 0;
    for (; j + kColumns <= columns; j += kColumns) accumulate<MR, kColumns>(t, row, j, g0, g1, w);
    if constexpr (kColumns > 4) {
      for (; j + 4 <= columns; j += 4) accumulate<MR, 4>(t, row, j, g0, g1, w);
    }
    if constexpr (kColumns > 2) {
      for (; j + 2 <= columns; j += 2) accumulate<MR, 2>(t, row, j, g0, g1, w);
    }
    if constexpr (kColumns > 1) {
      for (; j < columns; ++j) accumulate<MR, 1>(t, row, j, g0, g1, w);
    }
  }

  template <int MR>
  static void dispatch(const PieceTask& t, int row, int n) {
    if constexpr (MR > 1) {
      if (n < MR) return dispatch<MR - 1>(t, row, n);
    }
    rows<MR>(t, row);
  }

  // The rows in register blocks of nearly equal height.
  static void attend(const PieceTask& t) {
    const int blocks = (t.rows + kMaxRows - 1) / kMaxRows;
    for (int i = 0, row = 0; i < blocks; ++i) {
      const int n = (t.rows - row + (blocks - i) - 1) / (blocks - i);
      dispatch<kMaxRows>(t, row, n);
      row += n;
    }
  }
};

void rotate_heads(const float* in, float* out, int heads, int head_dim, int num_frequencies, const float* cos,
                  const float* sin) {
  for (int h = 0; h < heads; ++h, in += head_dim, out += head_dim) {
    for (int i = 0; i < num_frequencies; ++i) {
      const float x = in[i], y = in[i + num_frequencies];
      out[i] = x * cos[i] - y * sin[i];
      out[i + num_frequencies] = y * cos[i] + x * sin[i];
    }
    for (int i = 2 * num_frequencies; i < head_dim; ++i) out[i] = in[i];
  }
}

void narrow_to_bf16(const float* __restrict in, uint16_t* __restrict out, int count) {
  for (int i = 0; i < count; ++i) {
    uint32_t u;
    __builtin_memcpy(&u, in + i, 4);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const uint32_t quiet = (u >> 16) | 0x40u;
    out[i] = (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
  }
}

// f32 tiles: a step is one dimension (K) or one token (V).
template <class S, int MaxRows, int Accumulators>
struct F32Steps {
  using Simd = S;
  using Operand = typename S::F;
  static constexpr int kElements = 1;
  static constexpr int kBroadcastBytes = 4;
  static constexpr int kMaxRows = MaxRows;
  static constexpr int kAccumulators = Accumulators;
  static inline Operand load(const char* p) { return S::load((const float*)p); }
  static inline Operand broadcast(const char* p) { return S::set1(*(const float*)p); }
  static inline Operand multiply_add(Operand s, Operand x, Operand a) { return S::fma(s, x, a); }
  static inline void store_probabilities(char* p, Operand e) { S::store((float*)p, e); }
};

// bf16 tiles widened to f32: a step is two dimensions (K) or two tokens (V), the even one first.
template <class S, int MaxRows, int Accumulators>
struct Bf16Steps {
  using Simd = S;
  using F = typename S::F;
  struct Operand {
    F even, odd;
  };
  static constexpr int kElements = 2;
  static constexpr int kBroadcastBytes = 8;
  static constexpr int kMaxRows = MaxRows;
  static constexpr int kAccumulators = Accumulators;
  static inline Operand load(const char* p) {
    Operand x;
    S::widen(p, x.even, x.odd);
    return x;
  }
  static inline Operand broadcast(const char* p) {
    return {S::set1(((const float*)p)[0]), S::set1(((const float*)p)[1])};
  }
  static inline F multiply_add(const Operand& s, const Operand& x, F a) {
    return S::fma(s.odd, x.odd, S::fma(s.even, x.even, a));
  }
  static inline void store_probabilities(char* p, F e) { S::store((float*)p, e); }
};

// 2^f for f in [-0.5, 0.5], relative error below 2e-7; exactly 1 at 0. Cephes' coefficients of exp2f.
constexpr float kExp2Coefficients[6] = {1.535336188319500e-4f, 1.339887440266574e-3f, 9.618437357674640e-3f,
                                        5.550332471162809e-2f, 2.402264791363012e-1f, 6.931472028550421e-1f};

}  // namespace
}  // namespace pagedcore::cpu::attention_detail
