#include "cpu/attention/context.hpp"

#include <algorithm>
#include <cstring>

namespace pagedcore::cpu::attention_detail {

ContextReader::Tiles ContextReader::stored(int position) const noexcept {
  const TileLayout& layout = kv_.layout();
  const int block = position / layout.block_size;
  const auto tile = static_cast<std::size_t>((position - block * layout.block_size) / kTileTokens);
  const char* part = kv_.part(table_[block], layer_, kv_head_);
  return {part + tile * layout.k_tile, part + layout.v_offset + tile * layout.v_tile};
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

const char* ContextReader::masked(const char* v, int position, int tile) const noexcept {
  const TileLayout& layout = kv_.layout();
  char* copy = scratch_ + kPieceTiles * layout.k_tile + static_cast<std::size_t>(tile) * layout.v_tile;
  const int per_step = 4 / static_cast<int>(layout.element);  // tokens in a 32-bit lane of a V tile
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
  const bool tiled = kv_.layout().tiled;
  for (int g = task.first_tile; g < task.end_tile; ++g) {
    const int p = start + g * kTileTokens;
    Tiles tiles = tiled ? stored(p) : packed(p, g);
    task.next_k[g] = tiles.k;
    task.next_v[g] = tiles.v;
    if (tiled && (p < tile_.begin || p + kTileTokens > tile_.end)) tiles.v = masked(tiles.v, p, g);
    task.k[g] = tiles.k;
    task.v[g] = tiles.v;
    const int ahead = next / kContextPiece * kContextPiece + g * kTileTokens;
    if (tiled && ahead >= next && ahead < next_end) {
      const Tiles t = stored(ahead);
      task.next_k[g] = t.k;
      task.next_v[g] = t.v;
    }
  }
}

}  // namespace pagedcore::cpu::attention_detail
