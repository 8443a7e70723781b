// bf16 through AMX: a tile operation multiplies up to 16 query rows with a whole K tile (or V tile) of 16 tokens.
//
// Decode and prefill both go through it: an element of a tile is accumulated in one order whatever the number of rows,
// so a row's bits stay its own. K and V tiles are in the layout that tdpbf16ps wants of its second operand already.
#include "cpu/attention/bf16_dot_steps.hpp"

namespace pagedcore::cpu::attention_detail {
namespace {

using Kernel = AttentionKernel<Bf16DotSteps>;
constexpr int kScoreStride = kPieceTiles * kTileTokens * 4;  // bytes of Rows::s and Rows::p per query row
constexpr int kProbabilityStride = kPieceTiles * kTileTokens * 2;
constexpr int kStepTile = 16 * 64;  // 16 steps of a K tile: 32 dimensions of 16 tokens

// Registers: 0-3 sums, n rows x 16 lanes. 4 q, n rows x 32 dimensions; 5 K, 32 dimensions.
// 6 probabilities, n rows x 16 tokens (or q, 16 dimensions); 7 V, 16 tokens (or K, 16 dimensions).
// GCC's tile loads do not tell the compiler that they read memory: before them, what was stored must be in memory.
inline void publish(const void* p) { __asm__ volatile("" : : "r"(p) : "memory"); }

// Register blocks are of one height; the rows that the last one has too many are computed and ignored.
int block_rows(int rows) {
  const int blocks = (rows + kTileRows - 1) / kTileRows;
  return (rows + blocks - 1) / blocks;
}

void tile_begin(int rows) {
  const int n = block_rows(rows);
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t column_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  const uint16_t columns[8] = {64, 64, 64, 64, 64, 64, 32, 64};
  const uint8_t height[8] = {0, 0, 0, 0, 0, 16, 0, 8};
  for (int i = 0; i < 8; ++i) {
    config.column_bytes[i] = columns[i];
    config.rows[i] = height[i] != 0 ? height[i] : (uint8_t)n;
  }
  publish(&config);
  _tile_loadconfig(&config);
}

inline void prefetch(const char* p, int bytes) {
  for (int i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}

// Scores of all four tiles: independent sums hide the latency of the tile operation.
void dot4(const PieceTask& t, const char* q, char* s) {
  const int stride = t.key_dim * 2;
  const char *k0 = t.k[0], *k1 = t.k[1], *k2 = t.k[2], *k3 = t.k[3];
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  int d = 0, at = 0;
  for (; d + 32 <= t.key_dim; d += 32, at += kStepTile) {
    _tile_loadd(4, q + d * 2, stride);
    _tile_loadd(5, k0 + at, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(5, k1 + at, 64);
    _tile_dpbf16ps(1, 4, 5);
    _tile_loadd(5, k2 + at, 64);
    _tile_dpbf16ps(2, 4, 5);
    _tile_loadd(5, k3 + at, 64);
    _tile_dpbf16ps(3, 4, 5);
  }
  if (d < t.key_dim) {
    _tile_loadd(6, q + d * 2, stride);
    _tile_loadd(7, k0 + at, 64);
    _tile_dpbf16ps(0, 6, 7);
    _tile_loadd(7, k1 + at, 64);
    _tile_dpbf16ps(1, 6, 7);
    _tile_loadd(7, k2 + at, 64);
    _tile_dpbf16ps(2, 6, 7);
    _tile_loadd(7, k3 + at, 64);
    _tile_dpbf16ps(3, 6, 7);
  }
  _tile_stored(0, s, kScoreStride);
  _tile_stored(1, s + 64, kScoreStride);
  _tile_stored(2, s + 128, kScoreStride);
  _tile_stored(3, s + 192, kScoreStride);
}

void dot1(const PieceTask& t, const char* q, int g, char* s) {
  const int stride = t.key_dim * 2;
  _tile_zero(0);
  int d = 0, at = 0;
  for (; d + 32 <= t.key_dim; d += 32, at += kStepTile) {
    _tile_loadd(4, q + d * 2, stride);
    _tile_loadd(5, t.k[g] + at, 64);
    _tile_dpbf16ps(0, 4, 5);
  }
  if (d < t.key_dim) {
    _tile_loadd(6, q + d * 2, stride);
    _tile_loadd(7, t.k[g] + at, 64);
    _tile_dpbf16ps(0, 6, 7);
  }
  _tile_stored(0, s + g * 64, kScoreStride);
}

// acc += P V for column vectors [j, j + 4), then for one.
void accumulate4(const PieceTask& t, float* acc, const char* p, int j, int g0, int g1) {
  const int stride = t.value_dim * 4;
  float* a = acc + j * kLanes;
  _tile_loadd(0, a, stride);
  _tile_loadd(1, a + 16, stride);
  _tile_loadd(2, a + 32, stride);
  _tile_loadd(3, a + 48, stride);
  for (int g = g0; g < g1; ++g) {
    const char* v = t.v[g] + j * 64;
    _tile_loadd(6, p + g * 32, kProbabilityStride);
    _tile_loadd(7, v, stride);
    _tile_dpbf16ps(0, 6, 7);
    _tile_loadd(7, v + 64, stride);
    _tile_dpbf16ps(1, 6, 7);
    _tile_loadd(7, v + 128, stride);
    _tile_dpbf16ps(2, 6, 7);
    _tile_loadd(7, v + 192, stride);
    _tile_dpbf16ps(3, 6, 7);
  }
  _tile_stored(0, a, stride);
  _tile_stored(1, a + 16, stride);
  _tile_stored(2, a + 32, stride);
  _tile_stored(3, a + 48, stride);
}

void accumulate1(const PieceTask& t, float* acc, const char* p, int j, int g0, int g1) {
  const int stride = t.value_dim * 4;
  _tile_loadd(0, acc + j * kLanes, stride);
  for (int g = g0; g < g1; ++g) {
    _tile_loadd(6, p + g * 32, kProbabilityStride);
    _tile_loadd(7, t.v[g] + j * 64, stride);
    _tile_dpbf16ps(0, 6, 7);
  }
  _tile_stored(0, acc + j * kLanes, stride);
}

void attend_rows(const PieceTask& t, int row, int n) {
  int g0, g1;
  Kernel::visible_tiles(t, row, n, g0, g1);
  if (g0 == g1) return;
  Kernel::Rows<kTileRows> w;
  publish(t.q[row]);
  if (g1 - g0 == kPieceTiles) {
    dot4(t, t.q[row], (char*)w.s);
  } else {
    for (int g = g0; g < g1; ++g) dot1(t, t.q[row], g, (char*)w.s);
  }
  float* acc = t.acc + row * t.value_dim;
  Kernel::softmax<kTileRows>(t, row, n, g0, g1, w);
  for (int r = 0; r < n; ++r) {
    if (w.correction[r] == 1.0f) continue;
    const __m512 c = _mm512_set1_ps(w.correction[r]);
    float* x = acc + r * t.value_dim;
    for (int i = 0; i < t.value_dim; i += kLanes) _mm512_storeu_ps(x + i, _mm512_mul_ps(_mm512_loadu_ps(x + i), c));
  }
  publish(w.p);
  const int columns = t.value_dim / kLanes;
  int j = 0;
  for (; j + 4 <= columns; j += 4) accumulate4(t, acc, w.p[0], j, g0, g1);
  for (; j < columns; ++j) accumulate1(t, acc, w.p[0], j, g0, g1);
}

void attend_tiles(const PieceTask& t) {
  for (int g = t.first_tile; g < t.end_tile; ++g) {
    prefetch(t.next_k[g], t.key_dim * kTileTokens * 2);
    prefetch(t.next_v[g], t.value_dim * kTileTokens * 2);
  }
  const int n = block_rows(t.rows);
  for (int row = 0; row < t.rows; row += n) attend_rows(t, row, t.rows - row < n ? t.rows - row : n);
}

void tile_end() { _tile_release(); }

}  // namespace

const AttentionKernels kAmxKernels = {
    .f32 = AttentionKernel<F32Steps<Avx512, 6, 24>>::attend,
    .bf16 = AttentionKernel<Bf16Steps<Avx512, 5, 20>>::attend,
    .bf16_dot = AttentionKernel<Bf16DotSteps>::attend,
    .bf16_tile = attend_tiles,
    .tile_begin = tile_begin,
    .tile_end = tile_end,
    .rotate = rotate_heads,
    .narrow = narrow_to_bf16,
    .widen_f32 = {widen_k_f32, widen_v_f32},
    .widen_bf16 = {widen_k_bf16, widen_v_bf16},
};

}  // namespace pagedcore::cpu::attention_detail
