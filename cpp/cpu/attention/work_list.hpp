// The attention work list: computed once per step, used by every layer of the same shape.
//
// A tile is a run of query tokens of one range. Its context is cut into segments at multiples of kContextSegment
// positions; the softmax state is closed at each boundary and the states are merged in ascending order. That order is
// part of the result; which worker computes which segment is not, so units are shaped by cost alone.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "pagedcore/backend.hpp"

namespace pagedcore::cpu::attention_detail {

inline constexpr int kContextSegment = 512;

struct WorkShape {
  std::int32_t num_kv_heads = 0;
  std::int32_t num_heads = 0;          // query heads
  std::int32_t heads_per_kv_head = 0;  // at most, of them
  std::int32_t first_in_group = 0;     // as AttentionShape has it
  std::int32_t window = 0;
  bool bidirectional = false;
  std::int32_t threads = 0;
  std::int32_t layer_group = 0;  // whose block tables are read
  friend bool operator==(const WorkShape&, const WorkShape&) = default;

  // The query heads of a KV head.
  std::int32_t first_head(std::int32_t kv_head) const noexcept {
    return std::max(0, kv_head * heads_per_kv_head - first_in_group);
  }
  std::int32_t heads_of(std::int32_t kv_head) const noexcept {
    return std::min(num_heads, (kv_head + 1) * heads_per_kv_head - first_in_group) - first_head(kv_head);
  }
};

struct QueryTile {
  std::int32_t first_row;
  std::int32_t num_rows;  // tokens; query rows are these times the query heads per KV head
  std::int32_t first_position;
  std::int32_t table_offset;
  std::int32_t range_end;   // the first position behind its range
  std::int32_t begin, end;  // positions that some row of the tile sees
  std::int32_t last_begin;  // where the context of its last row begins
  std::int32_t first_end;   // where that of its first row ends
};

/// A context whose segments are computed by several workers. The last to finish merges.
struct Split {
  std::int32_t first_segment;
  std::int32_t num_segments;
  std::int32_t first_state;  // its segments' states, in units of WorkList::state_rows query rows
  std::atomic<std::int32_t> remaining;
};

/// The positions that the row at `position` sees, [begin, end), of a range that ends before `range_end`.
inline std::int32_t context_begin(const WorkShape& s, std::int32_t position) noexcept {
  return s.window > 0 ? std::max(0, position - s.window + 1) : 0;
}
inline std::int32_t context_end(const WorkShape& s, std::int32_t position, std::int32_t range_end) noexcept {
  if (!s.bidirectional) return position + 1;
  return s.window > 0 && s.window < range_end - position ? position + s.window : range_end;
}

struct WorkUnit {
  std::int32_t tile;
  std::int32_t kv_head;
  std::int32_t first_segment, last_segment;  // [first, last)
  std::int32_t split;                        // -1: the whole context in one unit
};

struct WorkList {
  WorkList(const WorkShape& shape, std::span<const TokenRange> ranges, std::span<const std::uint32_t> tables,
           std::int32_t block_size);

  WorkShape shape;
  std::vector<QueryTile> tiles;
  std::vector<WorkUnit> units;  // costliest first
  std::unique_ptr<Split[]> splits;
  std::int32_t num_states = 0;  // of all splits
  std::int32_t state_rows = 0;  // query rows of the largest tile
  std::int64_t cost = 0;        // query rows x positions, of all units
};

}  // namespace pagedcore::cpu::attention_detail
