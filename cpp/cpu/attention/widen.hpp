// Tiles of int8 codes made wide: plain loops over 16 lanes, which each instruction set's compiler options make vectors.
#pragma once

#include <stdint.h>

#include "cpu/kv/tiles.hpp"

namespace pagedcore::cpu::attention_detail {
namespace {

/// A product of a code and a scale as bf16, to nearest even. NaN is that of a scale: quiet, so it stays one.
inline uint32_t product_bf16(signed char code, float scale) {
  const float x = (float)code * scale;
  uint32_t u;
  __builtin_memcpy(&u, &x, 4);
  return (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}

void widen_k_f32(const char* codes, const float* scales, int dim, char* tile) {
  const signed char* __restrict c = (const signed char*)codes;
  float* __restrict out = (float*)tile;
  for (int d = 0; d < dim; ++d, c += kTileTokens, out += kTileTokens)
    for (int i = 0; i < kTileTokens; ++i) out[i] = (float)c[i] * scales[i];
}

void widen_v_f32(const char* codes, const float* scales, int dim, char* tile) {
  const signed char* __restrict c = (const signed char*)codes;
  float* __restrict out = (float*)tile;
  for (int t = 0; t < kTileTokens; ++t, c += dim, out += dim) {
    const float scale = scales[t];
    for (int d = 0; d < dim; d += kLanes)
      for (int i = d; i < d + kLanes; ++i) out[i] = (float)c[i] * scale;
  }
}

/// [dim][16 tokens] to [dim / 2][16 tokens][2 dims]
void widen_k_bf16(const char* codes, const float* scales, int dim, char* tile) {
  const signed char* __restrict even = (const signed char*)codes;
  uint32_t* __restrict out = (uint32_t*)tile;
  for (int d = 0; d < dim; d += 2, even += 2 * kTileTokens, out += kTileTokens)
    for (int i = 0; i < kTileTokens; ++i)
      out[i] = product_bf16(even[i], scales[i]) | product_bf16(even[kTileTokens + i], scales[i]) << 16;
}

/// [16 tokens][dim] to [8 token pairs][dim][2 tokens]
void widen_v_bf16(const char* codes, const float* scales, int dim, char* tile) {
  const signed char* __restrict even = (const signed char*)codes;
  uint32_t* __restrict out = (uint32_t*)tile;
  for (int t = 0; t < kTileTokens; t += 2, even += 2 * dim, out += dim) {
    const signed char* __restrict odd = even + dim;
    const float low = scales[t], high = scales[t + 1];
    for (int d = 0; d < dim; d += kLanes)
      for (int i = d; i < d + kLanes; ++i) out[i] = product_bf16(even[i], low) | product_bf16(odd[i], high) << 16;
  }
}

}  // namespace
}  // namespace pagedcore::cpu::attention_detail
