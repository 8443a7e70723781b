// Fences: a block is handed out again only when every step that may read it, or copy from it, has completed.
#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "pagedcore/kv_cache.hpp"

using namespace pagedcore;

namespace {

constexpr SequenceId A{1}, B{2}, C{3};
constexpr StepId kNow{0};

std::vector<TokenId> range(TokenId first, std::size_t count) {
  std::vector<TokenId> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

/// A sequence of its own, without a hit.
void start(KvCacheManager& kv, SequenceId seq, std::uint32_t length, std::uint64_t salt = 0) {
  std::vector<BlockCopy> copies;
  kv.create(seq, salt, {});
  kv.append(seq, length, copies);
}

}  // namespace

// rule: kv.fenced-until-read
TEST_CASE("the block that its last owner copies waits for the step that copies") {
  // Two groups of layers. The parent goes on until its window has passed the second block of group 1, so that the child
  // shares that block's sibling in group 0 and owns it alone in group 1. Both are copied, as a block of tokens is.
  KvCacheManager kv({.num_blocks = 32, .block_size = 4, .windows = {0, 8}});
  start(kv, A, 16);
  kv.fork(A, B, 6);
  kv.slide(A, 16, kNow);
  const BlockId shared = kv.block_table(B)[2], own = kv.block_table(B)[3];
  REQUIRE(kv.references(shared) == 2);
  REQUIRE(kv.references(own) == 1);
  std::vector<BlockCopy> copies;
  kv.append(B, 7, copies, StepId{5});
  REQUIRE(copies.size() == 2);
  CHECK(copies[0].src == shared);
  CHECK(copies[1].src == own);
  CHECK(kv.counts().in_flight == 1);
  start(kv, C, 4 * (kv.available() / 2));
  for (const BlockId block : kv.block_table(C)) CHECK(block != own);
  kv.complete(StepId{4});
  CHECK(kv.counts().in_flight == 1);
  kv.complete(StepId{5});
  CHECK(kv.counts().in_flight == 0);
  kv.check();
}

TEST_CASE("a block that others go on holding waits for their steps only") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4});
  start(kv, A, 6);
  kv.fork(A, B, 6);
  std::vector<BlockCopy> copies;
  kv.append(B, 7, copies, StepId{5});
  REQUIRE(copies.size() == 1);
  kv.free(A, kNow);  // as its owner says: no step that reads it is in flight
  CHECK(kv.counts().in_flight == 0);
  CHECK(kv.available() == 8 - 2);
}

// rule: kv.borrow-is-no-hold, kv.fenced-until-read
TEST_CASE("a borrowed block waits for the step that copies from it") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4});
  start(kv, A, 8);
  kv.publish(A, range(0, 8), 8);
  kv.free(A, kNow);
  kv.create(B, 0, kv.match_prefix(range(0, 6), 0, 6));
  REQUIRE(kv.length(B) == 6);
  std::vector<BlockCopy> copies;
  kv.append(B, 7, copies, StepId{3});
  REQUIRE(copies.size() == 1);
  CHECK(kv.counts().in_flight == 1);
  kv.complete(StepId{3});
  CHECK(kv.counts().in_flight == 0);
  // And when the borrower goes before it copies, for the last step that may have read it.
  kv.create(C, 0, kv.match_prefix(range(0, 6), 0, 6));
  kv.free(C, StepId{4});
  CHECK(kv.counts().in_flight >= 1);
  kv.complete(StepId{4});
  CHECK(kv.counts().in_flight == 0);
  kv.check();
}

// rule: kv.fenced-until-read
TEST_CASE("blocks that are swapped out wait for the last step that reads them") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4, .num_swap_blocks = 8});
  start(kv, A, 6);
  kv.fork(A, B, 4);
  std::vector<BlockSwap> moves;
  const std::vector<SequenceId> group{A, B};
  kv.swap_out(group, moves, StepId{3});
  CHECK(moves.size() == 2);
  CHECK(kv.counts().in_flight == 2);
  CHECK(kv.available() == 6);
  kv.complete(StepId{2});
  CHECK(kv.counts().in_flight == 2);
  kv.complete(StepId{3});
  CHECK(kv.available() == 8);
}

TEST_CASE("blocks that a window has passed wait for the last step that reads them") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4, .windows = {4}});
  start(kv, A, 12);
  kv.slide(A, 12, StepId{2});
  CHECK(kv.counts().in_flight == 2);
  kv.complete(StepId{2});
  CHECK(kv.counts().in_flight == 0);
  CHECK(kv.available() == 7);
}

TEST_CASE("a step that has completed stays so, whatever is reported after it") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4});
  start(kv, A, 8);
  kv.complete(StepId{5});
  kv.complete(StepId{3});
  kv.free(A, StepId{4});
  CHECK(kv.counts().in_flight == 0);
  CHECK(kv.available() == 8);
}
