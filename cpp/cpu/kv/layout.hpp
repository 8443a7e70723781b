// TileLayout: where a token's K and V lie in a block.
#pragma once

#include <cstddef>

#include "cpu/kv/tiles.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu {

/// Where a token's K and V lie inside one head's part of a block.
///
/// tiled (block_size a multiple of 16), per 16 tokens:
///   K  f32  [head_dim][16 tokens]          bf16  [key_dim / 2][16 tokens][2 dims]
///   V  f32  [16 tokens][value_dim]         bf16  [8 token pairs][value_dim][2 tokens]
/// Otherwise K and V are plain [block_size][head_dim]; attention packs them into such tiles piece by piece, so that a
/// small block wastes no memory on padding.
///
/// In int8 a token's K and V are codes, in tiles [key_dim][16 tokens] and [16 tokens][value_dim] or plain, and behind
/// both lie f32 scales, [K, V][block_size]: a number is its code times its token's scale. Attention widens them to
/// tiles of the compute type, so that the codes lie in one way for all of these.
struct TileLayout {
  DType dtype = DType::f32;  // stored
  DType tile = DType::f32;   // that attention reads: dtype, or, of int8, the compute type
  int head_dim = 0;
  int key_dim = 0;    // head_dim rounded up to what a lane holds: but for f32 to 2; the rest is zero in every K
  int value_dim = 0;  // head_dim rounded up to 16
  int block_size = 0;
  bool tiled = false;
  std::size_t element = 0;      // bytes of one stored
  std::size_t k_stored = 0;     // bytes of a 16-token K tile as it is stored
  std::size_t v_stored = 0;     // and V tile
  std::size_t k_tile = 0;       // the same as attention reads them
  std::size_t v_tile = 0;       //
  std::size_t v_offset = 0;     // of V inside a head's part
  std::size_t scales = 0;       // of the scales there; 0: none
  std::size_t head_bytes = 0;   // K and V of one head
  std::size_t layer_bytes = 0;  // all heads of one layer
  std::size_t block_bytes = 0;

  /// `compute`: what int8 is widened to. Throws Unsupported or InvalidArgument for a shape that cannot be served.
  TileLayout(const KvShape& shape, DType compute);
};

/// Writes a token, head_dim elements of the tile's type, to lane [0, 16) of a tile that attention reads.
void pack_k(const TileLayout& layout, char* tile, int lane, const char* row) noexcept;
void pack_v(const TileLayout& layout, char* tile, int lane, const char* row) noexcept;
/// Writes a token's K and V, of the stored type, to `token_slot` of one head's part of a block.
void write_token(const TileLayout& layout, char* part, int token_slot, const char* k, const char* v) noexcept;
/// Rounds them to int8: codes in [-127, 127], to nearest even, and scales of the largest magnitude / 127. A row that
/// holds a number that is not finite becomes all NaN.
void write_rounded(const TileLayout& layout, char* part, int token_slot, const float* k, const float* v) noexcept;

/// False when an element of V in `token_slot` is infinite or NaN.
bool finite_v(const TileLayout& layout, const char* part, int token_slot) noexcept;

}  // namespace pagedcore::cpu
