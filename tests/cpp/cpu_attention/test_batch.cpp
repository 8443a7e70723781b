#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "harness.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu::test {
namespace {

const std::vector<TokenId> kTokens{1, 2, 3, 4, 5};
const std::vector<BlockId> kTables{BlockId{0}, BlockId{1}, BlockId{2}};

std::string refusal(const std::vector<TokenRange>& ranges, int block_size = 4) {
  try {
    (void)make_batch({kTokens, ranges, kTables}, block_size);
  } catch (const InvalidArgument& e) {
    return e.what();
  }
  return "accepted";
}
bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a batch keeps its own copy of the tokens") {
  std::vector<TokenId> tokens = kTokens;
  const std::vector<TokenRange> ranges{{0, 4, 3, 0}, {4, 1, 0, 2}};
  const auto batch = make_batch({tokens, ranges, kTables}, 4);
  tokens.assign(5, 0);
  CHECK(batch->rows() == 5);
  CHECK(std::vector<TokenId>(batch_tokens(*batch).begin(), batch_tokens(*batch).end()) == kTokens);
  CHECK(make_batch({}, 4)->rows() == 0);
}

// rule: cpu_attention.mismatch-is-refused
TEST_CASE("ranges that do not tile the rows are refused, naming what is wrong") {
  CHECK(refusal({{0, 5, 0, 0}}) == "accepted");
  CHECK(contains(refusal({{0, 4, 0, 0}}), "cover 4 of 5 rows"));
  CHECK(contains(refusal({}), "cover 0 of 5 rows"));
  CHECK(contains(refusal({{0, 2, 0, 0}, {3, 2, 0, 0}}), "expected row 2"));
  CHECK(contains(refusal({{0, 3, 0, 0}, {2, 3, 0, 0}}), "expected row 3"));
  CHECK(contains(refusal({{1, 4, 0, 0}}), "expected row 0"));
  CHECK(contains(refusal({{0, 6, 0, 0}}), "of a batch of 5 rows"));
  CHECK(contains(refusal({{0, 5, 0, 0}, {5, 0, 0, 0}}), "0 rows"));
  CHECK(contains(refusal({{0, -1, 0, 0}}), "-1 rows"));
}

TEST_CASE("positions and block tables are checked") {
  CHECK(contains(refusal({{0, 5, -1, 0}}), "position -1"));
  CHECK(contains(refusal({{0, 5, 2147483646, 0}}), "position 2147483651"));
  CHECK(refusal({{0, 5, 7, 0}}) == "accepted");  // exactly three blocks
  CHECK(contains(refusal({{0, 5, 8, 0}}), "needs 4 blocks"));
  CHECK(contains(refusal({{0, 5, 0, 2}}), "at offset 2 of 3"));
  CHECK(contains(refusal({{0, 5, 0, -1}}), "at offset -1"));
  CHECK(contains(refusal({{0, 5, 0, 0}}, 0), "block size 0"));
}

TEST_CASE("a table that names a block beyond the storage is refused before anything is written") {
  ThreadPool pool(1);
  World world({.head_dim = 16, .kv_heads = 1, .heads_per_kv_head = 1}, {20});
  world.tables[0][1] = world.storage->num_blocks();  // the first that is not there
  CHECK_THROWS_AS(world.step(pool, {{0, 0, 20}}), InvalidArgument);
  world.tables[0][1] = raw(kNoBlock);
  CHECK_THROWS_AS(world.step(pool, {{0, 0, 20}}), InvalidArgument);
}

TEST_CASE("an empty batch does nothing") {
  ThreadPool pool(2);
  World world({.head_dim = 16}, {20});
  CHECK(world.step(pool, {}).empty());
}

}  // namespace pagedcore::cpu::test
