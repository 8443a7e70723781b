#include "cpu/attention/context.hpp"

#include <algorithm>
#include <cstring>

#include "cpu/attention/kernels.hpp"

namespace pagedcore::cpu::attention_detail {

namespace {

void prefetch(const char* p, std::size_t bytes) noexcept {
  for (std::size_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}

}  // namespace

ContextReader::Tiles ContextReader::stored(int position) const noexcept {
  const TileLayout& layout = kv_.layout();
  const int block = position / layout.block_size;
  const auto tile = static_cast<std::size_t>((position - block * layout.block_size) / kTileTokens);
  const char* part = kv_.part(table_[block], layer_, kv_head_);
  return {part + tile * layout.k_stored, part + layout.v_offset + tile * layout.v_stored};
}

ContextReader::Tiles ContextReader::packed(int position, int tile) const noexcept {
  const TileLayout& layout = kv_.layout();
  const std::size_t row = static_cast<std::size_t>(layout.head_dim) * layout.element;
  char* k = scratch_ + static_cast<std::size_t>(tile) * layout.k_tile;
  char* v = scratch_ + kPieceTiles * layout.k_tile + static_cast<std::size_t>(tile) * layout.v_tile;
  std::memset(v, 0, layout.v_tile);
  const int begin = std::max(position, tile_.begin), end = std::min(position + kTileTokens, tile_.end);
  for (int p = begin; p < end; ++p) {
    const char* part = kv_.part(table_[p / layout.block_size], layer_, kv_head_);
    const std::size_t offset = static_cast<std::size_t>(p % layout.block_size) * row;
    pack_k(layout, k, p - position, part + offset);
    pack_v(layout, v, p - position, part + layout.v_offset + offset);
  }
  return {k, v};
}

/// KV in int8. What no row sees has a scale of zero.
ContextReader::Tiles ContextReader::widened(int position, int tile) const noexcept {
  const TileLayout& layout = kv_.layout();
  const auto dim = static_cast<std::size_t>(layout.head_dim), width = static_cast<std::size_t>(layout.value_dim);
  const auto size = static_cast<std::size_t>(layout.block_size);
  char* const k = scratch_ + static_cast<std::size_t>(tile) * layout.k_tile;
  char* const v = scratch_ + kPieceTiles * layout.k_tile + static_cast<std::size_t>(tile) * layout.v_tile;
  alignas(64) float scales[2][kTileTokens] = {};
  alignas(64) char rows[2][kMaxHeadDim * kTileTokens];
  Tiles codes{rows[0], rows[1]};
  if (layout.tiled) {
    codes = stored(position);
  } else {
    std::memset(rows, 0, sizeof rows);
  }
  const int begin = std::max(position, tile_.begin), end = std::min(position + kTileTokens, tile_.end);
  for (int p = begin; p < end; ++p) {
    const char* part = kv_.part(table_[p / layout.block_size], layer_, kv_head_);
    const auto slot = static_cast<std::size_t>(p % layout.block_size), lane = static_cast<std::size_t>(p - position);
    std::memcpy(&scales[0][lane], part + layout.scales + slot * sizeof(float), sizeof(float));
    std::memcpy(&scales[1][lane], part + layout.scales + (size + slot) * sizeof(float), sizeof(float));
    if (layout.tiled) continue;
    for (std::size_t d = 0; d < dim; ++d) rows[0][d * kTileTokens + lane] = part[slot * dim + d];
    std::memcpy(rows[1] + lane * width, part + layout.v_offset + slot * dim, dim);
  }
  const AttentionKernels& kernels = kernels_of(kv_.isa());
  const WidenTile& widen = layout.tile == DType::f32 ? kernels.widen_f32 : kernels.widen_bf16;
  widen.k(codes.k, scales[0], layout.key_dim, k);
  widen.v(codes.v, scales[1], layout.value_dim, v);
  return {k, v};
}

const char* ContextReader::masked(const char* v, int position, int tile) const noexcept {
  const TileLayout& layout = kv_.layout();
  char* copy = scratch_ + kPieceTiles * layout.k_tile + static_cast<std::size_t>(tile) * layout.v_tile;
  const int per_step = layout.tile == DType::f32 ? 1 : 2;  // tokens in a 32-bit lane of a V tile
  const std::size_t step_bytes = static_cast<std::size_t>(layout.value_dim) * 4;
  for (int step = 0; step < kTileTokens / per_step; ++step) {
    std::uint32_t mask = 0;
    for (int i = 0; i < per_step; ++i) {
      const int p = position + step * per_step + i;
      if (p >= tile_.begin && p < tile_.end) mask |= per_step == 1 ? 0xffffffffu : 0xffffu << (16 * i);
    }
    const char* from = v + static_cast<std::size_t>(step) * step_bytes;
    char* to = copy + static_cast<std::size_t>(step) * step_bytes;
    for (int d = 0; d < layout.value_dim; ++d) {
      std::uint32_t lane;
      std::memcpy(&lane, from + d * 4, 4);
      lane &= mask;
      std::memcpy(to + d * 4, &lane, 4);
    }
  }
  return copy;
}

bool ContextReader::leaks(int position, int end) const noexcept {
  const TileLayout& layout = kv_.layout();
  const int all_begin = tile_.last_begin, all_end = tile_.first_end;  // seen by every row
  for (int p = position; p < end; ++p) {
    if (p >= all_begin && p < all_end) {
      p = std::min(all_end, end) - 1;
      continue;
    }
    const int token_slot = p % layout.block_size;
    if (!finite_v(layout, kv_.part(table_[p / layout.block_size], layer_, kv_head_), token_slot)) return true;
  }
  return false;
}

void ContextReader::read(PieceTask& task, int position, int end, int next, int next_end) const noexcept {
  const int start = position / kContextPiece * kContextPiece;
  task.position = start;
  task.first_tile = (position - start) / kTileTokens;
  task.end_tile = (end - start + kTileTokens - 1) / kTileTokens;
  const TileLayout& layout = kv_.layout();
  const bool in_place = layout.tiled && layout.scales == 0;
  for (int g = task.first_tile; g < task.end_tile; ++g) {
    const int p = start + g * kTileTokens;
    Tiles tiles = in_place ? stored(p) : layout.scales > 0 ? widened(p, g) : packed(p, g);
    task.next_k[g] = tiles.k;
    task.next_v[g] = tiles.v;
    if (in_place && (p < tile_.begin || p + kTileTokens > tile_.end)) tiles.v = masked(tiles.v, p, g);
    task.k[g] = tiles.k;
    task.v[g] = tiles.v;
    const int ahead = next / kContextPiece * kContextPiece + g * kTileTokens;
    if (!layout.tiled || ahead < next || ahead >= next_end) continue;
    const Tiles t = stored(ahead);
    if (in_place) {
      task.next_k[g] = t.k;
      task.next_v[g] = t.v;
    } else {
      prefetch(t.k, layout.k_stored);
      prefetch(t.v, layout.v_stored);
    }
  }
}

}  // namespace pagedcore::cpu::attention_detail
