// Tiles in memory, by the pseudocode of TILELOADD, TILESTORED and TDPBF16PS in Intel's manual (denormals apart), under
// the names of the intrinsics.
#include "cpu/matmul/simd_avx512.hpp"
//
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated_loadconfig
#define _tile_release emulated_release
#define _tile_loadd emulated_load
#define _tile_stream_loadd emulated_load
#define _tile_stored emulated_store
#define _tile_zero emulated_zero
#define _tile_dpbf16ps emulated_product
#define amx_kernel emulated_amx_kernel

namespace {

struct Tile {
  int rows, bytes;
  alignas(64) unsigned char data[16][64];
};
thread_local Tile tiles[8];

void emulated_loadconfig(const void* config) {
  const auto* bytes = static_cast<const unsigned char*>(config);
  for (int i = 0; i < 8; ++i) {
    std::uint16_t width;
    std::memcpy(&width, bytes + 16 + 2 * i, sizeof width);
    tiles[i].bytes = width;
    tiles[i].rows = bytes[48 + i];
  }
}
void emulated_release() {}
void emulated_zero(int tile) { std::memset(tiles[tile].data, 0, sizeof tiles[tile].data); }
void emulated_load(int tile, const void* from, std::int64_t stride) {
  emulated_zero(tile);
  for (int r = 0; r < tiles[tile].rows; ++r)
    std::memcpy(tiles[tile].data[r], static_cast<const char*>(from) + r * stride,
                static_cast<std::size_t>(tiles[tile].bytes));
}
void emulated_store(int tile, void* to, std::int64_t stride) {
  for (int r = 0; r < tiles[tile].rows; ++r)
    std::memcpy(static_cast<char*>(to) + r * stride, tiles[tile].data[r], static_cast<std::size_t>(tiles[tile].bytes));
}

float bf16_at(const unsigned char* row, int i) {
  std::uint16_t half;
  std::memcpy(&half, row + 2 * i, sizeof half);
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

void emulated_product(int sums, int in, int weights) {
  for (int m = 0; m < tiles[sums].rows; ++m)
    for (int n = 0; n < 16; ++n) {
      float even = 0.0f, odd = 0.0f, sum;
      for (int k = 0; k < 16; ++k) {
        const unsigned char *a = tiles[in].data[m], *b = tiles[weights].data[k];
        even += bf16_at(a, 2 * k) * bf16_at(b, 2 * n);
        odd += bf16_at(a, 2 * k + 1) * bf16_at(b, 2 * n + 1);
      }
      unsigned char* at = tiles[sums].data[m] + 4 * n;
      std::memcpy(&sum, at, sizeof sum);
      sum += even + odd;
      std::memcpy(at, &sum, sizeof sum);
    }
}

}  // namespace

#include "cpu/matmul/kernel_amx.cpp"  // NOLINT: the source itself, over the names above
