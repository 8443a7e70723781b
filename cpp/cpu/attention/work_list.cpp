#include "cpu/attention/work_list.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore::cpu::attention_detail {
namespace {

constexpr int kTileRows = 64;  // query rows that share one pass over K and V
constexpr int kReadCost = 4;   // reading a position costs as much as this many rows' arithmetic on it

void check_given(const QueryTile& tile, std::span<const std::uint32_t> tables, std::int32_t block_size) {
  for (std::int32_t b = tile.begin / block_size; b <= (tile.end - 1) / block_size; ++b) {
    if (tables[static_cast<std::size_t>(tile.table_offset + b)] == raw(kNoBlock))
      throw InvalidArgument(str("row ", tile.first_row, " at position ", tile.first_position,
                                " attends to a position of block ", b, " of its table, which names no block"));
  }
}

}  // namespace

WorkList::WorkList(const WorkShape& s, std::span<const TokenRange> ranges, std::span<const std::uint32_t> tables,
                   std::int32_t block_size)
    : shape(s) {
  const std::int32_t tile_tokens = std::max(1, kTileRows / s.heads_per_kv_head);
  std::vector<std::int64_t> costs;
  for (const TokenRange& range : ranges) {
    for (std::int32_t r = 0; r < range.num_rows; r += tile_tokens) {
      QueryTile tile{};
      tile.first_row = range.first_row + r;
      tile.num_rows = std::min(tile_tokens, range.num_rows - r);
      tile.first_position = range.first_position + r;
      tile.table_offset = range.table_offset;
      tile.range_end = range.first_position + range.num_rows;
      const std::int32_t last = tile.first_position + tile.num_rows - 1;
      tile.begin = context_begin(s, tile.first_position);
      tile.end = context_end(s, last, tile.range_end);
      tile.last_begin = context_begin(s, last);
      tile.first_end = context_end(s, tile.first_position, tile.range_end);
      check_given(tile, tables, block_size);
      state_rows = std::max(state_rows, tile.num_rows * s.heads_per_kv_head);
      costs.push_back(std::int64_t{tile.num_rows * s.heads_per_kv_head + kReadCost} * (tile.end - tile.begin));
      cost += costs.back() * s.num_kv_heads;
      tiles.push_back(tile);
    }
  }

  // A context is split only where leaving it whole would leave workers without work: at most 2 * threads are.
  const std::int64_t limit = s.threads > 1 ? cost / (2 * s.threads) : cost;
  struct Entry {
    WorkUnit unit;
    std::int64_t cost;
  };
  std::vector<Entry> entries;
  std::int32_t num_splits = 0;
  std::vector<WorkUnit> split_units;
  for (std::size_t t = 0; t < tiles.size(); ++t) {
    const QueryTile& tile = tiles[t];
    const std::int32_t first = tile.begin / kContextSegment, last = (tile.end - 1) / kContextSegment + 1;
    const bool split = costs[t] > limit && last - first > 1;
    for (std::int32_t head = 0; head < s.num_kv_heads; ++head) {
      const WorkUnit whole{static_cast<std::int32_t>(t), head, first, last, split ? num_splits : -1};
      if (!split) {
        entries.push_back({whole, costs[t]});
        continue;
      }
      split_units.push_back(whole);
      ++num_splits;
      for (std::int32_t segment = first; segment < last; ++segment) {
        WorkUnit part = whole;
        part.first_segment = segment;
        part.last_segment = segment + 1;
        entries.push_back({part, costs[t] / (last - first)});
      }
    }
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.cost > b.cost; });
  units.reserve(entries.size());
  for (const Entry& e : entries) units.push_back(e.unit);

  splits = std::make_unique<Split[]>(static_cast<std::size_t>(num_splits));
  for (std::size_t i = 0; i < split_units.size(); ++i) {
    splits[i].first_segment = split_units[i].first_segment;
    splits[i].num_segments = split_units[i].last_segment - split_units[i].first_segment;
    splits[i].first_state = num_states;
    splits[i].remaining.store(splits[i].num_segments, std::memory_order_relaxed);
    num_states += splits[i].num_segments;
  }
}

}  // namespace pagedcore::cpu::attention_detail
