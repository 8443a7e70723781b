// Copy on write: who may write to a block, who has to copy it first, and what of it.
#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "pagedcore/error.hpp"
#include "pagedcore/kv_cache.hpp"

using namespace pagedcore;

namespace {

constexpr SequenceId A{1}, B{2}, C{3}, D{4};
constexpr StepId kNow{0};

std::vector<TokenId> range(TokenId first, std::size_t count) {
  std::vector<TokenId> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

void start(KvCacheManager& kv, SequenceId seq, std::uint32_t length) {
  std::vector<BlockCopy> copies;
  kv.create(seq, 0, {});
  kv.append(seq, length, copies);
}

PrefixMatch match(const KvCacheManager& kv, std::uint32_t length) {
  return kv.match_prefix(range(0, length), 0, length);
}

}  // namespace

// rule: kv.borrow-is-no-hold
TEST_CASE("nobody overwrites tokens that another sequence has borrowed") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4});
  std::vector<BlockCopy> copies;
  start(kv, A, 8);
  kv.publish(A, range(0, 8), 8);
  kv.fork(A, B, 5);
  kv.free(A, kNow);
  const BlockId block = kv.block_table(B)[1];  // B owns it, and its tokens 6 to 8 are the cache's
  kv.create(C, 0, match(kv, 7));
  REQUIRE(kv.block_table(C)[1] == block);
  kv.append(B, 6, copies, StepId{1});
  REQUIRE(copies.size() == 1);
  CHECK(copies[0].src == block);
  CHECK(copies[0].num_tokens == 1);
  CHECK(kv.block_table(B)[1] != block);
  CHECK(match(kv, 8).num_tokens == 8);
  copies.clear();
  kv.append(C, 8, copies, StepId{1});
  REQUIRE(copies.size() == 1);
  CHECK(copies[0].src == block);
  CHECK(copies[0].num_tokens == 3);
  kv.check();
}

// rule: kv.borrow-is-no-hold
TEST_CASE("an owner writes behind what was borrowed of its block, without a copy") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4});
  std::vector<BlockCopy> copies;
  start(kv, A, 8);
  kv.publish(A, range(0, 8), 8);
  kv.create(B, 0, match(kv, 7));
  const BlockId block = kv.block_table(A)[1];
  REQUIRE(kv.block_table(B)[1] == block);
  kv.append(A, 9, copies);
  CHECK(copies.empty());
  // But a fork that borrows with its parent copies as its parent does.
  kv.fork(B, C, 7);
  kv.fork(B, D, 4);
  kv.append(C, 8, copies, StepId{1});
  kv.append(B, 8, copies, StepId{1});
  kv.append(D, 5, copies, StepId{1});
  REQUIRE(copies.size() == 2);
  for (const BlockCopy& copy : copies) CHECK(copy.src == block);
  CHECK(copies[0].dst != copies[1].dst);
  CHECK(kv.references(block) == 1);
  kv.check();
}

TEST_CASE("the last block is copied in all groups of layers when one of them shares it") {
  for (const bool first : {false, true}) {
    CAPTURE(first);
    const std::vector<std::uint32_t> windows =
        first ? std::vector<std::uint32_t>{0, 8} : std::vector<std::uint32_t>{8, 0};
    KvCacheManager kv({.num_blocks = 32, .block_size = 4, .windows = windows});
    std::vector<BlockCopy> copies;
    start(kv, A, 16);
    kv.fork(A, B, 6);
    kv.slide(A, 16, kNow);
    const std::vector<BlockId> before(kv.block_table(B).begin(), kv.block_table(B).end());
    kv.append(B, 7, copies, StepId{1});
    REQUIRE(copies.size() == 2);
    for (std::size_t group = 0; group < 2; ++group) {
      CHECK(copies[group].src == before[2 + group]);
      CHECK(copies[group].num_tokens == 2);
      CHECK(kv.references(kv.block_table(B)[2 + group]) == 1);
    }
    CHECK(kv.references(kv.block_table(A)[first ? 2 : 3]) == 1);
    kv.check();
  }
}

TEST_CASE("one that borrows has nothing of its own to publish, or to swap out") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4, .num_swap_blocks = 4});
  start(kv, A, 8);
  kv.publish(A, range(0, 8), 8);
  kv.create(B, 0, match(kv, 6));
  std::vector<BlockSwap> moves;
  const std::vector<SequenceId> one{A};
  const std::vector<SequenceId> group{B};
  CHECK_THROWS_AS(kv.swap_out(group, moves, kNow), InvalidArgument);
  kv.publish(B, range(0, 6), 6, true);
  CHECK(match(kv, 8).num_tokens == 8);
  kv.check();
}

TEST_CASE("a match must have as many tokens as its blocks hold") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4});
  start(kv, A, 6);
  kv.publish(A, range(0, 6), 6, true);
  PrefixMatch found = match(kv, 6);
  REQUIRE(found.num_tokens == 6);
  found.num_tokens = 7;
  CHECK_THROWS_AS(kv.create(B, 0, found), InvalidArgument);
  found.num_tokens = 8;
  CHECK_THROWS_AS(kv.create(B, 0, found), InvalidArgument);
  found.num_tokens = 4;  // of two blocks
  CHECK_THROWS_AS(kv.create(B, 0, found), InvalidArgument);
  found.num_tokens = 5;
  kv.create(B, 0, found);
  CHECK(kv.length(B) == 5);
  kv.check();
}

// rule: kv.cleared-stays-cleared
TEST_CASE("forks of a sequence that was computed before the cache was cleared publish nothing either") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4});
  std::vector<BlockCopy> copies;
  start(kv, A, 8);
  kv.clear_prefix_cache();
  kv.fork(A, B, 8);
  kv.append(B, 12, copies);
  kv.publish(B, range(0, 12), 12);
  CHECK(match(kv, 12).num_tokens == 0);
  start(kv, C, 8);
  kv.publish(C, range(0, 8), 8);
  CHECK(match(kv, 8).num_tokens == 8);
}

TEST_CASE("equal ends of sequences are kept once") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4});
  for (const SequenceId seq : {A, B, C}) {
    start(kv, seq, 2);
    kv.publish(seq, range(0, 2), 2, true);
    kv.free(seq, kNow);
  }
  CHECK(kv.counts().cached == 1);
  start(kv, D, 3);  // a longer one is another
  kv.publish(D, range(0, 3), 3, true);
  kv.free(D, kNow);
  CHECK(match(kv, 3).num_tokens == 3);
  kv.check();
}

// rule: kv.own-block-is-filled
TEST_CASE("a sequence that was forked, published to its end or swapped out does not fill its last block unasked") {
  std::vector<BlockCopy> copies;
  std::vector<BlockSwap> moves;
  const std::vector<SequenceId> one{A};
  KvCacheManager kv({.num_blocks = 8, .block_size = 4, .num_swap_blocks = 8});
  start(kv, A, 5);
  kv.append(A, 6, copies);
  CHECK(copies.empty());
  kv.fork(A, B, 5);
  kv.append(A, 7, copies);  // the second block has B's fifth token too
  CHECK(copies.size() == 1);
  kv.free(B, kNow);
  kv.publish(A, range(0, 7), 7, true);
  CHECK(match(kv, 8).num_tokens == 7);
  kv.append(A, 8, copies);  // the block is A's to write, so it is not found while it has an eighth token to come
  CHECK(copies.size() == 1);
  CHECK(match(kv, 8).num_tokens == 4);
  kv.append(A, 9, copies);
  kv.swap_out(one, moves, kNow);
  CHECK_THROWS_AS(kv.append(A, 10, copies), InvalidArgument);
  kv.swap_in(one, moves);
  kv.append(A, 10, copies);
  CHECK(copies.size() == 1);
  CHECK(kv.length(A) == 10);
  kv.check();
}
