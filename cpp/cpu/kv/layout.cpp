#include "cpu/kv/layout.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {

TileLayout::TileLayout(const KvShape& shape, DType compute) {
  check_kv_shape(shape);
  if (shape.head_dim < 1 || shape.head_dim > kMaxHeadDim)
    throw Unsupported(str("head size ", shape.head_dim, ": the CPU backend serves sizes of 1 to ", kMaxHeadDim));
  if (shape.dtype != DType::f32 && shape.dtype != DType::bf16 && shape.dtype != DType::i8)
    throw Unsupported(str("KV element type ", info(shape.dtype).name, ": the CPU backend stores f32, bf16 or int8"));
  dtype = shape.dtype;
  tile = dtype == DType::i8 ? compute : dtype;
  head_dim = shape.head_dim;
  block_size = shape.block_size;
  element = static_cast<std::size_t>(info(dtype).block_bytes);
  const auto tile_element = static_cast<std::size_t>(info(tile).block_bytes);
  key_dim = dtype == DType::f32 ? head_dim : (head_dim + 1) / 2 * 2;
  value_dim = (head_dim + kLanes - 1) / kLanes * kLanes;
  tiled = block_size % kTileTokens == 0;
  const auto dim = static_cast<std::size_t>(head_dim), width = static_cast<std::size_t>(value_dim);
  k_tile = kTileTokens * static_cast<std::size_t>(key_dim) * tile_element;
  v_tile = kTileTokens * width * tile_element;
  k_stored = k_tile / tile_element * element;
  v_stored = v_tile / tile_element * element;
  const auto tokens = static_cast<std::size_t>(block_size);
  v_offset = tiled ? tokens / kTileTokens * k_stored : tokens * dim * element;
  head_bytes = v_offset + (tiled ? tokens / kTileTokens * v_stored : tokens * dim * element);
  if (dtype == DType::i8) {
    scales = (head_bytes + sizeof(float) - 1) / sizeof(float) * sizeof(float);
    head_bytes = scales + 2 * tokens * sizeof(float);
  }
  layer_bytes = head_bytes * static_cast<std::size_t>(shape.num_kv_heads);
  const auto layers = static_cast<std::size_t>(shape.num_layers);
  if (layer_bytes > std::numeric_limits<std::size_t>::max() / 2 / layers)
    throw InvalidArgument(str("one KV block of ", shape.num_layers, " layers x ", shape.num_kv_heads,
                              " KV heads is larger than the address space"));
  block_bytes = layer_bytes * layers;
}

void pack_k(const TileLayout& layout, char* tile, int lane, const char* row) noexcept {
  // A lane of a step holds 4 bytes of either type: one f32 or a pair of bf16.
  const int bytes = layout.head_dim * (layout.tile == DType::f32 ? 4 : 2), steps = bytes / 4;
  for (int i = 0; i < steps; ++i) std::memcpy(tile + (i * kTileTokens + lane) * 4, row + i * 4, 4);
  if (bytes % 4 == 0) return;
  std::uint16_t last[2] = {};
  std::memcpy(last, row + steps * 4, sizeof last[0]);
  std::memcpy(tile + (steps * kTileTokens + lane) * 4, last, sizeof last);
}

void pack_v(const TileLayout& layout, char* tile, int lane, const char* row) noexcept {
  if (layout.tile == DType::f32) {
    std::memcpy(tile + lane * layout.value_dim * 4, row, static_cast<std::size_t>(layout.head_dim) * 4);
    return;
  }
  char* pair = tile + lane / 2 * layout.value_dim * 4 + lane % 2 * 2;
  for (int d = 0; d < layout.head_dim; ++d) std::memcpy(pair + d * 4, row + d * 2, 2);
}

void write_token(const TileLayout& layout, char* part, int token_slot, const char* k, const char* v) noexcept {
  if (layout.tiled) {
    const auto tile = static_cast<std::size_t>(token_slot / kTileTokens);
    pack_k(layout, part + tile * layout.k_stored, token_slot % kTileTokens, k);
    pack_v(layout, part + layout.v_offset + tile * layout.v_stored, token_slot % kTileTokens, v);
    return;
  }
  const std::size_t bytes = static_cast<std::size_t>(layout.head_dim) * layout.element;
  std::memcpy(part + static_cast<std::size_t>(token_slot) * bytes, k, bytes);
  std::memcpy(part + layout.v_offset + static_cast<std::size_t>(token_slot) * bytes, v, bytes);
}

namespace {

/// The scale; 0 where all numbers are, or are too small for one.
float round_row(const float* row, int count, signed char* codes) noexcept {
  float most = 0.0f, finite = 0.0f;
  for (int i = 0; i < count; ++i) {
    most = std::max(most, std::fabs(row[i]));
    finite += row[i] * 0.0f;
  }
  const float steps = 127.0f / most;
  if (!(finite == 0.0f) || !(steps <= std::numeric_limits<float>::max())) {
    std::memset(codes, 0, static_cast<std::size_t>(count));
    return finite == 0.0f ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }
  constexpr float kToNearest = 0x1.8p23f;  // what is added to it loses its fraction, to nearest even
  for (int i = 0; i < count; ++i) codes[i] = static_cast<signed char>((row[i] * steps + kToNearest) - kToNearest);
  return most / 127.0f;
}

}  // namespace

void write_rounded(const TileLayout& layout, char* part, int token_slot, const float* k, const float* v) noexcept {
  signed char codes[2][kMaxHeadDim];
  const float scales[2] = {round_row(k, layout.head_dim, codes[0]), round_row(v, layout.head_dim, codes[1])};
  const auto slot = static_cast<std::size_t>(token_slot), dim = static_cast<std::size_t>(layout.head_dim);
  char* values = part + layout.v_offset;
  if (layout.tiled) {
    char* keys = part + slot / kTileTokens * layout.k_stored + slot % kTileTokens;
    for (std::size_t d = 0; d < dim; ++d) keys[d * kTileTokens] = codes[0][d];
    if (layout.key_dim > layout.head_dim) keys[dim * kTileTokens] = 0;
    values += slot / kTileTokens * layout.v_stored + slot % kTileTokens * static_cast<std::size_t>(layout.value_dim);
  } else {
    std::memcpy(part + slot * dim, codes[0], dim);
    values += slot * dim;
  }
  std::memcpy(values, codes[1], dim);
  for (std::size_t i = 0; i < 2; ++i) {
    const std::size_t at = layout.scales + (i * static_cast<std::size_t>(layout.block_size) + slot) * sizeof(float);
    std::memcpy(part + at, &scales[i], sizeof(float));
  }
}

namespace {
template <class Word>
bool all_finite(const char* p, int count, Word exponent) noexcept {
  unsigned bad = 0;
  for (int i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, p + static_cast<std::size_t>(i) * sizeof word, sizeof word);
    bad |= static_cast<unsigned>((word & exponent) == exponent);
  }
  return bad == 0;
}
}  // namespace

bool finite_v(const TileLayout& layout, const char* part, int token_slot) noexcept {
  if (layout.scales > 0) {
    const auto slot = static_cast<std::size_t>(layout.block_size + token_slot);
    return all_finite<std::uint32_t>(part + layout.scales + slot * sizeof(float), 1, 0x7f800000u);
  }
  const char* v = part + layout.v_offset;
  const bool wide = layout.dtype == DType::f32;
  if (!layout.tiled) {
    v += static_cast<std::size_t>(token_slot * layout.head_dim) * layout.element;
    return wide ? all_finite<std::uint32_t>(v, layout.head_dim, 0x7f800000u)
                : all_finite<std::uint16_t>(v, layout.head_dim, 0x7f80u);
  }
  // A row of 32-bit lanes: one f32, or this token's bf16 beside another's.
  const int lane = token_slot % kTileTokens, row = wide ? lane : lane / 2;
  v += static_cast<std::size_t>(token_slot / kTileTokens) * layout.v_stored +
       static_cast<std::size_t>(row * layout.value_dim) * 4;
  return all_finite<std::uint32_t>(v, layout.head_dim, wide ? 0x7f800000u : 0x7f80u << (lane % 2 * 16));
}

}  // namespace pagedcore::cpu
