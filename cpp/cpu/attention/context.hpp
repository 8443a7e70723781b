// The tiles of a query tile's context, read through its block table.
#pragma once

#include <cstdint>

#include "cpu/attention/kernel.hpp"
#include "cpu/attention/work_list.hpp"
#include "cpu/kv/storage.hpp"

namespace pagedcore::cpu::attention_detail {

/// Finds, or packs, the K and V tiles of one KV head for one piece of context after another.
///
/// A token slot that no row sees may hold anything: stale data of other sequences, NaN included. A score of it stays in
/// its own lane and is masked there; its V would be multiplied by a probability of zero, so a V tile with such token
/// slots is copied with zeros in their place; KV in int8 is widened into tiles with such zeros from the start. Slots
/// that only some rows of a tile see are the tile's own tokens and, with a window, the oldest: where one of them is not
/// finite, leaks() tells, and the tile is computed token by token, so that a sequence that overflows cannot reach
/// earlier rows, whose blocks other sequences may share.
class ContextReader {
 public:
  /// `scratch` holds scratch_bytes(layout), 64-byte aligned.
  ContextReader(const PagedStorage& kv, std::int32_t layer, std::int32_t kv_head, const QueryTile& tile,
                const std::uint32_t* table, char* scratch)
      : kv_(kv), layer_(layer), kv_head_(kv_head), tile_(tile), table_(table), scratch_(scratch) {}

  static std::size_t scratch_bytes(const TileLayout& layout) noexcept {
    return kPieceTiles * (layout.k_tile + layout.v_tile);
  }

  /// Whether, among positions [position, end), some row of the tile sees a V that is not finite and another does not.
  bool leaks(int position, int end) const noexcept;
  /// The same context for a tile of fewer rows.
  ContextReader seen_by(const QueryTile& tile) const noexcept {
    return {kv_, layer_, kv_head_, tile, table_, scratch_};
  }
  char* scratch() const noexcept { return scratch_; }

  /// Fills position and tiles of `task` for positions [position, end) of a piece; prefetches those of the piece
  /// [next, next_end), if any.
  void read(PieceTask& task, int position, int end, int next, int next_end) const noexcept;

 private:
  struct Tiles {
    const char* k;
    const char* v;
  };
  Tiles stored(int position) const noexcept;
  Tiles packed(int position, int tile) const noexcept;
  Tiles widened(int position, int tile) const noexcept;
  const char* masked(const char* v, int position, int tile) const noexcept;

  const PagedStorage& kv_;
  std::int32_t layer_;
  std::int32_t kv_head_;
  const QueryTile& tile_;
  const std::uint32_t* table_;
  char* scratch_;  // [4] K tiles, [4] V tiles
};

}  // namespace pagedcore::cpu::attention_detail
