#include "cpu/kv/layout.hpp"

#include <cstdint>
#include <cstring>
#include <limits>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {

TileLayout::TileLayout(const KvShape& shape) {
  check_kv_shape(shape);
  if (shape.head_dim < 1 || shape.head_dim > kMaxHeadDim)
    throw Unsupported(str("head size ", shape.head_dim, ": the CPU backend serves sizes of 1 to ", kMaxHeadDim));
  if (shape.dtype != DType::f32 && shape.dtype != DType::bf16)
    throw Unsupported(str("KV element type ", info(shape.dtype).name, ": the CPU backend stores f32 or bf16"));
  dtype = shape.dtype;
  head_dim = shape.head_dim;
  block_size = shape.block_size;
  element = dtype == DType::f32 ? 4 : 2;
  key_dim = element == 4 ? head_dim : (head_dim + 1) / 2 * 2;
  value_dim = (head_dim + kLanes - 1) / kLanes * kLanes;
  tiled = block_size % kTileTokens == 0;
  const auto dim = static_cast<std::size_t>(head_dim), width = static_cast<std::size_t>(value_dim);
  k_tile = kTileTokens * static_cast<std::size_t>(key_dim) * element;
  v_tile = kTileTokens * width * element;
  const auto tokens = static_cast<std::size_t>(block_size);
  v_offset = tiled ? tokens / kTileTokens * k_tile : tokens * dim * element;
  head_bytes = v_offset + (tiled ? tokens / kTileTokens * v_tile : tokens * dim * element);
  layer_bytes = head_bytes * static_cast<std::size_t>(shape.num_kv_heads);
  const auto layers = static_cast<std::size_t>(shape.num_layers);
  if (layer_bytes > std::numeric_limits<std::size_t>::max() / 2 / layers)
    throw InvalidArgument(str("one KV block of ", shape.num_layers, " layers x ", shape.num_kv_heads,
                              " KV heads is larger than the address space"));
  block_bytes = layer_bytes * layers;
}

void pack_k(const TileLayout& layout, char* tile, int lane, const char* row) noexcept {
  // A lane of a step holds 4 bytes of either type: one f32 or a pair of bf16.
  const int bytes = layout.head_dim * static_cast<int>(layout.element), steps = bytes / 4;
  for (int i = 0; i < steps; ++i) std::memcpy(tile + (i * kTileTokens + lane) * 4, row + i * 4, 4);
  if (bytes % 4 == 0) return;
  std::uint16_t last[2] = {};
  std::memcpy(last, row + steps * 4, sizeof last[0]);
  std::memcpy(tile + (steps * kTileTokens + lane) * 4, last, sizeof last);
}

void pack_v(const TileLayout& layout, char* tile, int lane, const char* row) noexcept {
  if (layout.dtype == DType::f32) {
    std::memcpy(tile + lane * layout.value_dim * 4, row, static_cast<std::size_t>(layout.head_dim) * 4);
    return;
  }
  char* pair = tile + lane / 2 * layout.value_dim * 4 + lane % 2 * 2;
  for (int d = 0; d < layout.head_dim; ++d) std::memcpy(pair + d * 4, row + d * 2, 2);
}

void write_token(const TileLayout& layout, char* part, int token_slot, const char* k, const char* v) noexcept {
  if (layout.tiled) {
    const auto tile = static_cast<std::size_t>(token_slot / kTileTokens);
    pack_k(layout, part + tile * layout.k_tile, token_slot % kTileTokens, k);
    pack_v(layout, part + layout.v_offset + tile * layout.v_tile, token_slot % kTileTokens, v);
    return;
  }
  const std::size_t bytes = static_cast<std::size_t>(layout.head_dim) * layout.element;
  std::memcpy(part + static_cast<std::size_t>(token_slot) * bytes, k, bytes);
  std::memcpy(part + layout.v_offset + static_cast<std::size_t>(token_slot) * bytes, v, bytes);
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
  const char* v = part + layout.v_offset;
  const bool wide = layout.dtype == DType::f32;
  if (!layout.tiled) {
    v += static_cast<std::size_t>(token_slot * layout.head_dim) * layout.element;
    return wide ? all_finite<std::uint32_t>(v, layout.head_dim, 0x7f800000u)
                : all_finite<std::uint16_t>(v, layout.head_dim, 0x7f80u);
  }
  // A row of 32-bit lanes: one f32, or this token's bf16 beside another's.
  const int lane = token_slot % kTileTokens, row = wide ? lane : lane / 2;
  v += static_cast<std::size_t>(token_slot / kTileTokens) * layout.v_tile +
       static_cast<std::size_t>(row * layout.value_dim) * 4;
  return all_finite<std::uint32_t>(v, layout.head_dim, wide ? 0x7f800000u : 0x7f80u << (lane % 2 * 16));
}

}  // namespace pagedcore::cpu
