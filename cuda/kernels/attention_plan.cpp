#include "kernels/attention_plan.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <unordered_map>
#include <utility>

namespace pagedcore::cuda {
namespace {

constexpr std::int32_t kUncut = std::numeric_limits<std::int32_t>::max();

constexpr std::int32_t ceil_div(std::int32_t a, std::int32_t b) { return (a + b - 1) / b; }

/// Query rows of one range that are computed together.
struct Tile {
  AttentionItem item;                // over their whole context
  std::int32_t first_row, num_rows;  // rows of the batch, some of whose heads the tile has
  std::int32_t first_position;
  std::int32_t next_segment;  // segments before it are computed by items that the tile shares with others
  bool wide;
  bool split;  // its rows have states

  std::int32_t end_segment() const { return ceil_div(item.end, kContextSegment); }
  std::int32_t segments_left() const { return std::max(0, end_segment() - next_segment); }
};

class Planner {
 public:
  Planner(std::span<const TokenRange> ranges, std::span<const std::uint32_t> tables, const AttentionPlanShape& shape)
      : tables_(tables), shape_(shape), heads_per_kv_head_(shape.num_heads / shape.num_kv_heads) {
    std::int32_t rows = 0;
    for (const TokenRange& range : ranges) {
      cut(range);
      rows += range.num_rows;
    }
    plan_.row_states.assign(static_cast<std::size_t>(rows), -1);
    for (std::int32_t r = 0; r < rows; ++r) plan_.rows.push_back(r);
  }

  AttentionPlan run() {
    std::vector<Tile*> narrow;
    for (Tile& tile : tiles_) {
      if (!tile.wide) narrow.push_back(&tile);
    }
    share(narrow, 0);
    // The longest first: what a device begins last should be short, and states are for those that need them most.
    std::vector<Tile*> order;
    for (Tile& tile : tiles_) order.push_back(&tile);
    std::ranges::stable_sort(order, std::ranges::greater(), &Tile::segments_left);
    const std::int32_t segments = segments_of_an_item(order);
    for (Tile* tile : order) {
      if (!tile->split && tile->segments_left() > segments) reserve_states(*tile);
      emit(*tile, tile->split ? segments : kUncut);
    }
    return std::move(plan_);
  }

 private:
  std::int32_t lowest(std::int32_t position) const {
    return shape_.window > 0 ? std::max(0, position - shape_.window + 1) : 0;
  }

  void cut(const TokenRange& range) {
    const std::int32_t query_rows = range.num_rows * heads_per_kv_head_;
    const bool wide = query_rows > kNarrowTile;
    const std::int32_t height = wide ? attention_wide_tile(shape_.head_dim) : kNarrowTile;
    for (std::int32_t at = 0; at < query_rows; at += height) {
      const std::int32_t count = std::min(height, query_rows - at);
      const std::int32_t first = at / heads_per_kv_head_, last = (at + count - 1) / heads_per_kv_head_;
      const std::int32_t position = range.first_position + first, begin = lowest(position);
      const AttentionItem item{range.first_row * heads_per_kv_head_ + at, count, range.table_offset, begin,
                               range.first_position + last + 1};
      tiles_.push_back(
          {item, range.first_row + first, last - first + 1, position, begin / kContextSegment, wide, false});
    }
  }

  /// Gives each row of the tile a state for every segment that it sees; not where the workspace is full.
  bool reserve_states(Tile& tile) {
    const auto segments = [&](std::int32_t i) {
      const std::int32_t position = tile.first_position + i;
      return position / kContextSegment - lowest(position) / kContextSegment + 1;
    };
    std::int64_t states = plan_.num_states;
    for (std::int32_t i = 0; i < tile.num_rows; ++i) states += segments(i);
    if (states > shape_.max_states) return false;
    for (std::int32_t i = 0; i < tile.num_rows; ++i) {
      const std::int32_t row = tile.first_row + i;
      auto& state = plan_.row_states[static_cast<std::size_t>(row)];
      if (state >= 0) continue;  // by the tile that has the row's other heads
      state = static_cast<std::int32_t>(plan_.num_states);
      plan_.num_states += segments(i);
      plan_.split_rows.push_back(row);
    }
    return tile.split = true;
  }

  std::span<const std::uint32_t> blocks_of(const Tile& tile, std::int32_t segment) const {
    const std::int32_t first = segment * kContextSegment / shape_.block_size;
    const std::int32_t last = ceil_div((segment + 1) * kContextSegment, shape_.block_size);
    return tables_.subspan(static_cast<std::size_t>(tile.item.table + first), static_cast<std::size_t>(last - first));
  }

  /// Computes `segment`, and those after it, once for tiles that have it in the same blocks. All of `tiles` had the
  /// same blocks before it.
  void share(const std::vector<Tile*>& tiles, std::int32_t segment) {
    std::unordered_multimap<std::uint32_t, std::vector<Tile*>> alike;  // by the segment's first block
    for (Tile* tile : tiles) {
      // A tile whose window begins inside the segment before has that part to itself: it does not share.
      if (tile->item.end < (segment + 1) * kContextSegment || tile->item.begin > 0) continue;
      const auto blocks = blocks_of(*tile, segment);
      auto [at, end] = alike.equal_range(blocks[0]);
      while (at != end && !std::ranges::equal(blocks, blocks_of(*at->second[0], segment))) ++at;
      if (at == end)
        alike.insert({blocks[0], {tile}});
      else
        at->second.push_back(tile);
    }
    std::vector<std::vector<Tile*>> sharing;
    for (auto& [block, members] : alike) {
      if (members.size() > 1) sharing.push_back(std::move(members));
    }
    std::ranges::sort(sharing, {}, [](const auto& members) { return members[0]->first_row; });
    for (auto& members : sharing) {
      std::erase_if(members, [&](Tile* tile) { return !tile->split && !reserve_states(*tile); });
      if (members.size() < 2) continue;
      emit_shared(members, segment);
      share(members, segment + 1);
    }
  }

  void emit_shared(const std::vector<Tile*>& tiles, std::int32_t segment) {
    const auto first = static_cast<std::int32_t>(plan_.rows.size()) * heads_per_kv_head_;
    for (Tile* tile : tiles) {
      for (std::int32_t i = 0; i < tile->num_rows; ++i) plan_.rows.push_back(tile->first_row + i);
      tile->next_segment = segment + 1;
    }
    const std::int32_t query_rows = static_cast<std::int32_t>(plan_.rows.size()) * heads_per_kv_head_ - first;
    for (std::int32_t at = 0; at < query_rows;) {
      const bool wide = query_rows - at > kNarrowTile;
      const std::int32_t count = std::min(wide ? attention_wide_tile(shape_.head_dim) : kNarrowTile, query_rows - at);
      (wide ? plan_.wide : plan_.narrow)
          .push_back(
              {first + at, count, tiles[0]->item.table, segment * kContextSegment, (segment + 1) * kContextSegment});
      at += count;
    }
  }

  /// How many segments an item of a split context has at most. By the work of all: the device is done when its last
  /// item is, so contexts are split, into halves of the work that is each slot's share and then into quarters, until
  /// the last item ends within a quarter of the earliest possible end. `tiles`: longest first.
  std::int32_t segments_of_an_item(const std::vector<Tile*>& tiles) const {
    std::int64_t work = 0;
    for (const Tile* tile : tiles) work += tile->segments_left();
    if (work == 0) return kUncut;
    const auto slots = std::max(1, shape_.parallelism / shape_.num_kv_heads);
    const auto share = static_cast<double>(work) / slots;
    if (tiles[0]->segments_left() <= share / 4) return kUncut;
    const double goal = std::max(1.0, share) * 1.25;
    for (const double part : {1e9, 1.0, 0.5}) {
      const auto segments = static_cast<std::int32_t>(std::clamp(share * part, 1.0, double{kUncut}));
      if (end_of(tiles, segments, slots) <= goal) return segments;
    }
    return std::max(1, static_cast<std::int32_t>(share / 4));
  }

  /// The segments of the items of a context of `left`: nearly equal ones, of at most `most`.
  static std::int32_t item_of(std::int32_t left, std::int32_t most) {
    return left <= most ? left : ceil_div(left, ceil_div(left, most));
  }

  /// When the last item ends, in segments, if each of `slots` takes the next item as soon as it is free.
  static std::int64_t end_of(const std::vector<Tile*>& tiles, std::int32_t most, std::int32_t slots) {
    std::vector<std::int64_t> free_at(static_cast<std::size_t>(slots));  // a heap, the earliest first
    std::int64_t end = 0;
    for (const Tile* tile : tiles) {
      const std::int32_t size = item_of(tile->segments_left(), most);
      for (std::int32_t left = tile->segments_left(); left > 0; left -= size) {
        std::ranges::pop_heap(free_at, std::ranges::greater());
        free_at.back() += std::min(size, left);
        end = std::max(end, free_at.back());
        std::ranges::push_heap(free_at, std::ranges::greater());
      }
    }
    return end;
  }

  void emit(const Tile& tile, std::int32_t segments) {
    segments = item_of(tile.segments_left(), segments);
    for (std::int32_t segment = tile.next_segment; segment < tile.end_segment();) {
      const std::int32_t next = segments < tile.end_segment() - segment ? segment + segments : tile.end_segment();
      AttentionItem item = tile.item;
      item.begin = std::max(item.begin, segment * kContextSegment);
      item.end = std::min(item.end, next * kContextSegment);
      (tile.wide ? plan_.wide : plan_.narrow).push_back(item);
      segment = next;
    }
  }

  std::span<const std::uint32_t> tables_;
  const AttentionPlanShape& shape_;
  std::int32_t heads_per_kv_head_;
  std::vector<Tile> tiles_;
  AttentionPlan plan_;
};

}  // namespace

AttentionPlan plan_attention(std::span<const TokenRange> ranges, std::span<const std::uint32_t> tables,
                             const AttentionPlanShape& shape) {
  return Planner(ranges, tables, shape).run();
}

}  // namespace pagedcore::cuda
