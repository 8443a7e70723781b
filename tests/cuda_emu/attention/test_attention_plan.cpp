#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "kernels/attention_plan.hpp"

using namespace pagedcore::cuda;

namespace {

struct RandomBatch {
  std::vector<pagedcore::TokenRange> ranges;
  std::vector<std::uint32_t> tables;
  std::vector<int> positions, row_tables;  // [rows]
};

/// Sequences of up to 1,500 tokens; many begin with blocks of a family.
RandomBatch random_batch(std::mt19937& random, int block_size, int window) {
  RandomBatch batch;
  std::uint32_t next_block = 1000;
  for (int s = 0; s < 12; ++s) {
    const int length = 1 + static_cast<int>(random() % 1500);
    const int rows = random() % 3 ? 1 : std::min(length, 1 + static_cast<int>(random() % 90));
    const int shared = static_cast<int>(random() % 1000) / block_size;
    batch.ranges.push_back(
        {static_cast<int>(batch.positions.size()), rows, length - rows, static_cast<int>(batch.tables.size())});
    for (int b = 0; b * block_size < length; ++b) {
      const bool reached = window == 0 || (b + 1) * block_size > length - rows - window + 1;
      batch.tables.push_back(!reached ? 0xffffffffu : b < shared ? static_cast<std::uint32_t>(b) : next_block++);
    }
    for (int i = 0; i < rows; ++i) {
      batch.positions.push_back(length - rows + i);
      batch.row_tables.push_back(batch.ranges.back().table_offset);
    }
  }
  return batch;
}

}  // namespace

TEST_CASE("items cover what each query row sees exactly once, in blocks of its own table") {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const int block_sizes[] = {1, 5, 16, 24, 256, 300};
    const int numbers_of_heads[] = {1, 3, 4, 7, 16, 20, 70};
    const int windows[] = {0, 0, 0, 100, 700};
    const int parallelisms[] = {1, 30, 1000};
    const std::int64_t limits[] = {0, 7, 100000};
    AttentionPlanShape shape;
    const int heads = numbers_of_heads[random() % 7];
    shape.num_kv_heads = 2, shape.num_heads = 2 * heads;
    shape.head_dim = random() % 2 ? 128 : 256;
    shape.block_size = block_sizes[random() % 6];
    shape.window = windows[random() % 5];
    shape.parallelism = parallelisms[random() % 3];
    shape.max_states = limits[random() % 3];
    const RandomBatch batch = random_batch(random, shape.block_size, shape.window);
    const AttentionPlan plan = plan_attention(batch.ranges, batch.tables, shape);
    CAPTURE(round);

    CHECK(plan.num_states <= shape.max_states);
    const auto rows = batch.positions.size();
    REQUIRE(plan.row_states.size() == rows);
    std::vector<std::vector<AttentionItem>> of_query_row(rows * static_cast<std::size_t>(heads));
    int problems = 0;
    const auto take = [&](const AttentionItem& item, int height) {
      problems += item.count < 1 || item.count > height || item.begin >= item.end;
      for (int i = 0; i < item.count; ++i) {
        const int index = item.first + i, row = plan.rows[static_cast<std::size_t>(index / heads)];
        of_query_row[static_cast<std::size_t>(row * heads + index % heads)].push_back(item);
      }
    };
    for (const AttentionItem& item : plan.narrow) take(item, kNarrowTile);
    for (const AttentionItem& item : plan.wide) take(item, attention_wide_tile(shape.head_dim));

    std::set<int> states;
    std::multiset<int> split(plan.split_rows.begin(), plan.split_rows.end());
    for (std::size_t row = 0; row < rows; ++row) {
      const int position = batch.positions[row];
      const int lowest = shape.window > 0 ? std::max(0, position - shape.window + 1) : 0;
      const bool is_split = plan.row_states[row] >= 0;
      problems += split.count(static_cast<int>(row)) != (is_split ? 1u : 0u);
      if (is_split) {
        for (int c = lowest / kContextSegment; c <= position / kContextSegment; ++c)
          problems += !states.insert(plan.row_states[row] + c - lowest / kContextSegment).second;
      }
      for (int head = 0; head < heads; ++head) {
        auto& items = of_query_row[row * static_cast<std::size_t>(heads) + static_cast<std::size_t>(head)];
        std::ranges::sort(items, {}, &AttentionItem::begin);
        problems += !is_split && items.size() != 1;
        int at = lowest;  // covered up to here
        for (const AttentionItem& item : items) {
          problems += item.begin > at || (&item != &items[0] && item.begin != at);
          problems += item.end <= position && item.end % kContextSegment != 0;
          for (int p = std::max(item.begin, lowest); p < std::min(item.end, position + 1); p += shape.block_size) {
            problems += batch.tables[static_cast<std::size_t>(item.table + p / shape.block_size)] !=
                        batch.tables[static_cast<std::size_t>(batch.row_tables[row] + p / shape.block_size)];
          }
          at = item.end;
        }
        problems += at <= position;
      }
    }
    CHECK(problems == 0);
    CHECK(static_cast<std::int64_t>(states.size()) == plan.num_states);
  }
}

TEST_CASE(
    "contexts are split by the work of all: no item runs alone at the end, whatever the batch, and none for nothing") {
  constexpr int kSlots = 33;  // of 8 KV heads on 132 multiprocessors with two blocks of threads each
  struct Cost {
    double end = 0, share = 0;  // of the last item, and of all work evenly; in tokens
    std::int64_t states = 0;
  };
  const auto cost_of = [&](const std::vector<int>& lengths) {
    std::vector<pagedcore::TokenRange> ranges;
    std::vector<std::uint32_t> tables;
    for (const int length : lengths) {
      ranges.push_back({static_cast<int>(ranges.size()), 1, length - 1, static_cast<int>(tables.size())});
      for (int b = 0; b * 16 < length; ++b) tables.push_back(static_cast<std::uint32_t>(tables.size()));
    }
    const AttentionPlan plan = plan_attention(ranges, tables, {32, 8, 128, 16, 0, 264, 100000});
    REQUIRE(plan.wide.empty());
    std::vector<double> slots(kSlots);  // each takes the next item when it is free, in the order of the launch
    Cost cost;
    cost.states = plan.num_states;
    for (const AttentionItem& item : plan.narrow) {
      auto& slot = *std::ranges::min_element(slots);
      slot += item.end - item.begin;
      cost.end = std::max(cost.end, slot);
      cost.share += double(item.end - item.begin) / kSlots;
    }
    return cost;
  };
  std::vector<int> mixed(32, 512);
  mixed.push_back(32768);                                   // the last of a batch that fills the device
  CHECK(cost_of(mixed).end <= 1.3 * cost_of(mixed).share);  // 32,768 of 1,489 where nothing was split
  mixed.assign(200, 700);
  mixed[17] = 100000;
  CHECK(cost_of(mixed).end <= 1.3 * cost_of(mixed).share);
  // One more than there is room for at once: not twice the time.
  CHECK(cost_of(std::vector<int>(34, 32768)).end <= 1.3 * 32768 * 34 / 33);
  CHECK(cost_of({32768}).end <= 1.3 * 32768 / 33 + kContextSegment);
  // As many as fit, and many that are alike or short: whole.
  CHECK(cost_of(std::vector<int>(33, 32768)).states == 0);
  CHECK(cost_of(std::vector<int>(256, 2048)).states == 0);
  CHECK(cost_of(std::vector<int>(64, 200)).states == 0);
}

TEST_CASE("a decode batch reads each KV head's context once; sequences with a common prefix read it once together") {
  std::vector<pagedcore::TokenRange> ranges;
  std::vector<std::uint32_t> tables;
  for (int s = 0; s < 16; ++s) {
    ranges.push_back({s, 1, 2047 + s, static_cast<int>(tables.size())});
    for (std::uint32_t b = 0; b < 130; ++b)
      tables.push_back(b < 128 ? b : static_cast<std::uint32_t>(1000 + 2 * s) + b);
  }
  const auto tokens_read = [&](std::int64_t max_states) {
    const AttentionPlan plan = plan_attention(ranges, tables, {32, 8, 128, 16, 0, 216, max_states});
    int tokens = 0;
    for (const auto& items : {plan.narrow, plan.wide}) {
      for (const AttentionItem& item : items) tokens += item.end - item.begin;
    }
    return tokens;
  };
  CHECK(tokens_read(0) == 16 * 2048 + 16 * 15 / 2);
  // The first sequence ends with the shared blocks: its last segment holds its own token, shared too.
  CHECK(tokens_read(1000) == 2048 + 15 * 16 / 2);
}
