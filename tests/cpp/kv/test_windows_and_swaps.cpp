// What windows let go of, and what moves to the swap space and back.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "pagedcore/error.hpp"
#include "pagedcore/kv_cache.hpp"

using namespace pagedcore;

namespace {

constexpr SequenceId A{1}, B{2}, C{3};
constexpr StepId kNow{0};

void start(KvCacheManager& kv, SequenceId seq, std::uint32_t length) {
  std::vector<BlockCopy> copies;
  kv.create(seq, 0, {});
  kv.append(seq, length, copies);
}

}  // namespace

TEST_CASE("a sequence holds no more than its footprint between steps, in all groups of layers") {
  for (const std::uint32_t window : {1u, 4u, 6u, 8u, 9u}) {
    KvCacheManager kv({.num_blocks = 64, .block_size = 4, .windows = {0, window}});
    kv.create(A, 0, {});
    std::vector<BlockCopy> copies;
    for (std::uint32_t length = 1; length <= 60; ++length) {
      kv.append(A, length, copies);
      kv.slide(A, length, kNow);
      CHECK(kv.counts().used <= kv.footprint(length));
    }
    // The tokens of a window begin and end inside a block.
    CHECK(kv.footprint(60) == 15 + kv.blocks_for(window) + 1);
  }
}

// rule: kv.windows-let-go
TEST_CASE("a prefix is found where every group still has the blocks that its window reaches, and nowhere else") {
  KvCacheManager kv({.num_blocks = 15, .block_size = 4, .windows = {0, 4}});
  std::vector<TokenId> tokens(16);
  std::iota(tokens.begin(), tokens.end(), 0);
  start(kv, A, 16);
  kv.publish(A, tokens, 16);
  kv.slide(A, 16, kNow);  // of group 1 only the last block is held
  const auto found = [&](std::uint32_t most) { return kv.match_prefix(tokens, 0, most).num_tokens; };
  CHECK(found(8) == 8);  // the others are cached
  start(kv, B, 20);      // takes all ten that are not held: those
  REQUIRE(kv.available() == 0);
  for (const std::uint32_t most : {4u, 8u, 12u, 14u}) CHECK(found(most) == 0);
  CHECK(found(15) == 15);  // the next token, at 15, sees from 12 on
  CHECK(found(16) == 16);
  const PrefixMatch match = kv.match_prefix(tokens, 0, 16);
  REQUIRE(match.blocks.size() == 8);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(match.blocks[2 * i] == kv.block_table(A)[2 * i]);
    CHECK(match.blocks[2 * i + 1] == (i < 3 ? kNoBlock : kv.block_table(A)[7]));
  }
  kv.check();
}

TEST_CASE("nobody forks where the window has passed what the fork would see") {
  KvCacheManager kv({.num_blocks = 32, .block_size = 4, .windows = {0, 8}});
  start(kv, A, 20);
  kv.slide(A, 20, kNow);  // in group 1 the first three blocks are gone
  const std::uint32_t used = kv.counts().used;
  for (std::uint32_t length = 1; length <= 20; ++length) {
    // The next token at 19 sees from 12 on.
    if (length >= 19) {
      kv.fork(A, B, length);
      kv.free(B, kNow);
    } else {
      CHECK_THROWS_WITH_AS(kv.fork(A, B, length), doctest::Contains("has passed block"), InvalidArgument);
      CHECK_FALSE(kv.contains(B));
    }
    CHECK(kv.counts().used == used);
  }
  kv.check();
}

TEST_CASE("only what was swapped out comes in, and it is of no use before") {
  KvCacheManager kv({.num_blocks = 16, .block_size = 4, .num_swap_blocks = 8});
  start(kv, A, 8);
  start(kv, B, 8);
  std::vector<BlockSwap> moves;
  const std::vector<SequenceId> one{A}, both{A, B};
  CHECK_THROWS_AS(kv.swap_in(one, moves), InvalidArgument);
  kv.swap_out(one, moves, kNow);
  moves.clear();
  CHECK_THROWS_AS(kv.swap_in(both, moves), InvalidArgument);
  CHECK_THROWS_AS(kv.swap_out(both, moves, kNow), InvalidArgument);
  CHECK(moves.empty());
  CHECK(kv.is_swapped(A));
  CHECK_FALSE(kv.is_swapped(B));
  std::vector<BlockCopy> copies;
  CHECK_THROWS_AS(kv.append(A, 9, copies), InvalidArgument);
  CHECK_THROWS_AS(kv.fork(A, C, 4), InvalidArgument);
  CHECK_THROWS_AS(kv.publish(A, std::vector<TokenId>(8), 8), InvalidArgument);
  kv.check();
  kv.swap_in(one, moves);
  CHECK(moves.size() == 2);
  kv.append(A, 9, copies);
  kv.check();
}

TEST_CASE("lower slots are used first") {
  KvCacheManager kv({.num_blocks = 16, .block_size = 4, .num_swap_blocks = 8});
  start(kv, A, 12);
  start(kv, B, 8);
  start(kv, C, 12);
  const auto slots = [&](SequenceId seq) {
    std::vector<BlockSwap> moves;
    const std::vector<SequenceId> group{seq};
    kv.swap_out(group, moves, kNow);
    std::vector<std::uint32_t> used;
    for (const BlockSwap& move : moves) used.push_back(raw(move.slot));
    std::ranges::sort(used);
    return used;
  };
  CHECK(slots(A) == std::vector<std::uint32_t>{0, 1, 2});
  CHECK(slots(B) == std::vector<std::uint32_t>{3, 4});
  kv.free(A, kNow);
  CHECK(slots(C) == std::vector<std::uint32_t>{0, 1, 2});
}
