// The picture of a scheduler: every number by counting what was done.
#include <doctest/doctest.h>

#include <map>

#include "planned.hpp"

using namespace pagedcore;
using namespace fake;

namespace {

EngineSnapshot drawn(const Scheduler& scheduler, const SnapshotLimits& limits = {}) {
  EngineSnapshot picture;
  scheduler.draw(limits, picture);
  return picture;
}

/// How many tables list each block.
std::map<std::uint32_t, int> holders(const EngineSnapshot& picture) {
  std::map<std::uint32_t, int> count;
  for (const TablePicture& table : picture.tables)
    for (std::uint32_t i = 0; i < table.num_entries; ++i) ++count[picture.entries[table.first_entry + i]];
  count.erase(raw(kNoBlock));
  return count;
}

}  // namespace

TEST_CASE("a picture says who holds which block, and how many do") {
  Planned service({.max_batched_tokens = 64}, {.num_blocks = 20, .block_size = 4});
  SchedulerRequest two = prompted(7, with({}, 9, 5), 6);
  two.num_samples = 2;
  service.submit(two);
  service.submit(prompted(8, {1, 2, 3}, 6));
  service.next();
  service.next();
  const EngineSnapshot picture = drawn(service.scheduler);
  CHECK(picture.num_blocks == 20);
  CHECK(picture.block_size == 4);
  CHECK(picture.num_layer_groups == 1);
  CHECK(picture.blocks_per_cell == 1);
  REQUIRE(picture.requests.size() == 2);
  const RequestPicture& first = picture.requests[0];
  CHECK(raw(first.id) == 7);
  CHECK(first.place == RequestPlace::running);
  CHECK(first.prompt_tokens == 9);
  CHECK(first.output_tokens == 2);     // two steps, the first of which computed the prompt
  CHECK(first.computed_tokens == 10);  // the last token's KV is to come
  CHECK(first.max_tokens == 6);
  CHECK(first.num_samples == 2);
  REQUIRE(picture.tables.size() == 3);
  CHECK(picture.tables[1].sample == 1);
  CHECK(picture.tables[0].num_tokens == 10);
  CHECK(picture.tables[0].num_entries == 3);
  CHECK(picture.tables[2].num_entries == 1);
  // 9 tokens are two full blocks, which both samples share, and one token in a third, which one copied.
  const auto counted = holders(picture);
  CHECK(counted.size() == 5);
  REQUIRE(picture.cells.size() == 20);
  int used = 0, shared = 0;
  for (std::uint32_t block = 0; block < 20; ++block) {
    const int tables = counted.contains(block) ? counted.at(block) : 0;
    if (tables > 0) CHECK(picture.cells[block] == kOwnedCell + tables - 1);
    used += picture.cells[block] >= kOwnedCell;
    shared += picture.cells[block] == kOwnedCell + 1;
  }
  CHECK(used == 5);
  CHECK(shared == 2);
}

TEST_CASE("a cell is free, cached or in flight as its block is") {
  KvCacheManager kv({.num_blocks = 6, .block_size = 4});
  std::vector<BlockCopy> copies;
  kv.create(SequenceId{1}, 0, {});
  kv.append(SequenceId{1}, 8, copies);
  kv.create(SequenceId{2}, 0, {});
  kv.append(SequenceId{2}, 4, copies);
  const std::vector<TokenId> tokens(8, 3);
  kv.publish(SequenceId{1}, tokens, 8);
  using Cells = std::vector<std::uint8_t>;
  CHECK(kv.cells(1) == Cells{3, 3, 3, 0, 0, 0});
  kv.free(SequenceId{2}, StepId{5});
  kv.free(SequenceId{1}, StepId{0});
  CHECK(kv.cells(1) == Cells{1, 1, 2, 0, 0, 0});
  CHECK(kv.cells(4) == Cells{2, 0});  // of several the highest
  CHECK(kv.cells(100) == Cells{2});
  CHECK(kv.cells(0) == kv.cells(1));
  kv.complete(StepId{5});
  CHECK(kv.cells(1) == Cells{1, 1, 0, 0, 0, 0});
}

TEST_CASE("what is swapped out says in which slots it is") {
  Planned service({.max_batched_tokens = 64}, {.num_blocks = 20, .block_size = 4, .num_swap_blocks = 8});
  service.submit(prompted(1, with({}, 9, 5), 9));
  service.submit(prompted(2, with({}, 5, 6), 9));
  service.next();
  REQUIRE(service.swap(2));
  service.next();
  const EngineSnapshot picture = drawn(service.scheduler);
  REQUIRE(picture.requests.size() == 2);
  CHECK(picture.requests[1].place == RequestPlace::swapped);
  REQUIRE(picture.tables.size() == 2);
  const TablePicture& table = picture.tables[1];
  CHECK(raw(table.request) == 2);
  CHECK(table.swapped);
  REQUIRE(table.num_entries == 2);
  REQUIRE(picture.entries.size() == table.first_entry + 4);
  CHECK(picture.entries[table.first_entry] == raw(kNoBlock));
  CHECK(picture.entries[table.first_entry + 2] == 0);  // the lowest slots are taken first
  CHECK(picture.entries[table.first_entry + 3] == 1);
  CHECK(picture.num_swap_slots == 8);
  CHECK(picture.swap_cells == std::vector<std::uint8_t>{3, 3, 0, 0, 0, 0, 0, 0});
}

TEST_CASE("a picture keeps its bounds, and says what it left out") {
  Planned service({.max_batched_tokens = 64, .max_sequences = 3}, {.num_blocks = 40, .block_size = 4});
  for (std::uint64_t id = 1; id <= 10; ++id) service.submit(prompted(id, with({TokenId(id)}, 8, 5), 9));
  service.next();
  const EngineSnapshot all = drawn(service.scheduler);
  CHECK(all.requests.size() == 10);
  CHECK(all.requests[3].place == RequestPlace::waiting);
  CHECK(all.tables.size() == 3);
  CHECK(all.requests_left_out == 0);
  CHECK(all.tables_left_out == 0);
  const EngineSnapshot few = drawn(service.scheduler, {.max_cells = 7, .max_requests = 2, .max_entries = 4});
  CHECK(few.requests.size() == 2);
  CHECK(few.requests_left_out == 8);
  CHECK(few.tables.size() == 1);  // of three blocks each
  CHECK(few.tables_left_out == 2);
  CHECK(few.entries.size() == 3);
  CHECK(few.blocks_per_cell == 6);
  CHECK(few.cells.size() == 7);
  // Who is looked into comes first.
  const EngineSnapshot third = drawn(service.scheduler, {.max_requests = 2, .max_entries = 4, .first = RequestId{3}});
  REQUIRE(third.requests.size() == 2);
  CHECK(raw(third.requests[0].id) == 3);
  CHECK(raw(third.requests[1].id) == 1);
  REQUIRE(third.tables.size() == 1);
  CHECK(raw(third.tables[0].request) == 3);
  const EngineSnapshot last = drawn(service.scheduler, {.max_requests = 1, .first = RequestId{10}});
  REQUIRE(last.requests.size() == 1);
  CHECK(raw(last.requests[0].id) == 10);
  CHECK(drawn(service.scheduler, {.first = RequestId{99}}).requests.size() == 10);
}

TEST_CASE("a registered prefix holds its blocks under its own number") {
  Planned service({.max_batched_tokens = 64}, {.num_blocks = 20, .block_size = 4});
  service.scheduler.register_prefix(PrefixId{4}, prompted(9, with({}, 8, 5), 0));
  service.next();
  SchedulerRequest user = prompted(2, with({}, 11, 5), 4);
  user.prefix = PrefixId{4};
  service.submit(user);
  service.next();
  const EngineSnapshot picture = drawn(service.scheduler);
  REQUIRE(picture.requests.size() == 1);
  CHECK(picture.requests[0].cached_tokens == 8);
  REQUIRE(picture.tables.size() == 2);
  const TablePicture& prefix = picture.tables[1];
  CHECK(raw(prefix.request) == 0);
  CHECK(raw(prefix.prefix) == 4);
  CHECK(prefix.num_entries == 2);
  CHECK(picture.entries[prefix.first_entry] == picture.entries[picture.tables[0].first_entry]);
}
