// KvScratch: what a plan is told is what the manager then does, block by block, fence by fence.
#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "pagedcore/error.hpp"
#include "pagedcore/kv_cache.hpp"

using namespace pagedcore;

namespace {

constexpr SequenceId A{1}, B{2}, C{3}, D{4};
constexpr StepId kNow{0}, kStep{7};

std::vector<TokenId> range(TokenId first, std::size_t count) {
  std::vector<TokenId> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

void start(KvCacheManager& kv, SequenceId seq, std::uint32_t length, std::uint64_t salt = 0) {
  std::vector<BlockCopy> copies;
  kv.create(seq, salt, {});
  kv.append(seq, length, copies);
}

/// A sequence whose tokens are cached, with `seq` as the last holder of a block that was longer: it shares the first
/// `shared` of `length` tokens.
void inherit(KvCacheManager& kv, SequenceId seq, std::uint32_t length, std::uint32_t shared) {
  const SequenceId gone{100 + raw(seq)};
  start(kv, gone, length);
  kv.publish(gone, range(0, length), length, true);
  kv.fork(gone, seq, shared);
  kv.free(gone, kNow);
}

PrefixMatch match(const KvCacheManager& kv, std::uint32_t length) {
  return kv.match_prefix(range(0, length), 0, length);
}

}  // namespace

// rule: kv.scratch-counts-what-will-be
TEST_CASE("scratch: a block that its last owner copies is not counted on in the same plan") {
  KvCacheManager kv({.num_blocks = 32, .block_size = 4, .windows = {0, 8}});
  start(kv, A, 16);
  kv.fork(A, B, 6);
  kv.slide(A, 16, kNow);
  KvScratch scratch = kv.scratch();
  REQUIRE(scratch.append(B, 7));
  std::vector<BlockCopy> copies;
  kv.append(B, 7, copies, kStep);
  CHECK(scratch.available() == kv.available());
}

TEST_CASE("scratch: a shared block that is copied comes free with its last holder") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4});
  start(kv, A, 6);
  kv.fork(A, B, 6);
  KvScratch scratch = kv.scratch();
  REQUIRE(scratch.append(B, 7));
  scratch.free(A, kNow);
  std::vector<BlockCopy> copies;
  kv.append(B, 7, copies, kStep);
  kv.free(A, kNow);
  CHECK(scratch.available() == kv.available());
  CHECK(kv.available() == 6);
}

TEST_CASE("scratch: what is freed or swapped out behind a step in flight is not there yet") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4, .num_swap_blocks = 8});
  start(kv, A, 8);
  start(kv, B, 8);
  kv.complete(StepId{3});
  KvScratch scratch = kv.scratch();
  const std::vector<SequenceId> group{A};
  REQUIRE(scratch.swap_out(group, StepId{4}));
  CHECK(scratch.available() == 4);
  scratch.free(B, StepId{4});
  CHECK(scratch.available() == 4);
  scratch = kv.scratch();
  REQUIRE(scratch.swap_out(group, StepId{3}));
  CHECK(scratch.available() == 6);
  scratch.free(B, StepId{2});
  CHECK(scratch.available() == 8);
}

TEST_CASE("scratch: a block that a creation borrows stays away until the step has copied from it") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4});
  start(kv, A, 8);
  kv.publish(A, range(0, 8), 8);
  const PrefixMatch found = match(kv, 6);
  REQUIRE(found.num_tokens == 6);
  KvScratch scratch = kv.scratch();
  REQUIRE(scratch.create(found, 7));
  scratch.free(A, kNow);
  std::vector<BlockCopy> copies;
  kv.create(B, 0, found);
  kv.free(A, kNow);
  kv.append(B, 7, copies, kStep);
  CHECK(scratch.available() == kv.available());
  CHECK(kv.counts().in_flight == 1);
}

TEST_CASE("scratch: no creation may use a block that an append is going to overwrite") {
  KvCacheManager kv({.num_blocks = 16, .block_size = 4});
  inherit(kv, A, 8, 6);
  const PrefixMatch found = match(kv, 8);
  REQUIRE(found.num_tokens == 8);
  KvScratch scratch = kv.scratch();
  REQUIRE(scratch.append(A, 7));  // in place: it holds the block alone
  CHECK_FALSE(scratch.create(found, 9));
  CHECK(scratch.create(match(kv, 4), 9));
  KvScratch other = kv.scratch();
  CHECK(other.create(found, 9));  // before anybody writes
}

TEST_CASE("scratch: a creation, a fork and a return leave blocks to spare") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4, .num_swap_blocks = 8});
  start(kv, A, 8);
  start(kv, B, 8);
  const std::vector<SequenceId> group{B};
  std::vector<BlockSwap> moves;
  kv.swap_out(group, moves, kNow);
  REQUIRE(kv.available() == 6);
  CHECK_FALSE(kv.scratch().create({}, 8, 5));
  CHECK(kv.scratch().create({}, 8, 4));
  CHECK_FALSE(kv.scratch().fork(A, 8, 9, 6));
  CHECK(kv.scratch().fork(A, 8, 9, 5));
  CHECK_FALSE(kv.scratch().swap_in(group, 5));
  CHECK(kv.scratch().swap_in(group, 4));
}

TEST_CASE("scratch: the cached blocks of a match are counted as taken") {
  KvCacheManager kv({.num_blocks = 4, .block_size = 4});
  start(kv, A, 12);
  kv.publish(A, range(0, 12), 12);
  kv.free(A, kNow);
  REQUIRE(kv.available() == 4);
  CHECK(kv.scratch().create(match(kv, 12), 16));
  CHECK_FALSE(kv.scratch().create(match(kv, 12), 16, 1));
  CHECK_FALSE(kv.scratch().create(match(kv, 12), 17));
}

TEST_CASE("scratch: only what the manager holds is forked") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4});
  start(kv, A, 6);
  kv.fork(A, B, 6);
  KvScratch scratch = kv.scratch();
  REQUIRE(scratch.append(A, 7));  // its last block is to be a copy, which is not there yet
  CHECK_FALSE(scratch.fork(A, 6, 7));
  CHECK(scratch.fork(A, 4, 7));
  CHECK(scratch.fork(B, 6, 7));
}

TEST_CASE("scratch: a borrower that goes is a holder of nothing") {
  KvCacheManager kv({.num_blocks = 16, .block_size = 4});
  start(kv, A, 6);
  kv.publish(A, range(0, 6), 6, true);
  kv.fork(A, B, 6);
  kv.create(C, 0, match(kv, 5));
  REQUIRE(kv.length(C) == 5);
  kv.clear_prefix_cache();
  KvScratch scratch = kv.scratch();
  scratch.free(C, kNow);
  REQUIRE(scratch.append(A, 7));
  kv.free(C, kNow);
  std::vector<BlockCopy> copies;
  kv.append(A, 7, copies, kStep);
  CHECK(copies.size() == 1);  // two hold it still
  CHECK(scratch.available() == kv.available());
}

TEST_CASE("scratch: a sequence that goes takes with it what it took in the plan") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4, .num_swap_blocks = 8});
  start(kv, A, 6);
  KvScratch scratch = kv.scratch();
  REQUIRE(scratch.append(A, 14));
  CHECK(scratch.available() == 4);
  scratch.free(A, kNow);
  CHECK(scratch.available() == 8);
  CHECK_FALSE(scratch.append(A, 15));
  CHECK_FALSE(scratch.fork(A, 4, 5));

  scratch = kv.scratch();
  REQUIRE(scratch.append(A, 14));
  const std::vector<SequenceId> group{A};
  REQUIRE(scratch.swap_out(group, kNow));
  CHECK(scratch.available() == 8);
  CHECK_FALSE(scratch.swap_out(group, kNow));
}

// rule: kv.scratch-counts-what-will-be
TEST_CASE("scratch: slots are taken once, by those who are in memory") {
  KvCacheManager kv({.num_blocks = 16, .block_size = 4, .num_swap_blocks = 3});
  start(kv, A, 8);
  start(kv, B, 8);
  const std::vector<SequenceId> first{A}, second{B};
  KvScratch scratch = kv.scratch();
  REQUIRE(scratch.swap_out(first, kNow));
  CHECK_FALSE(scratch.swap_out(second, kNow));  // two of three are gone
  std::vector<BlockSwap> moves;
  kv.swap_out(first, moves, kNow);
  CHECK_THROWS_AS(kv.swap_out(second, moves, kNow), OutOfMemory);
  scratch = kv.scratch();
  CHECK_FALSE(scratch.swap_out(first, kNow));
  CHECK_FALSE(scratch.append(A, 9));
  scratch.free(A, kNow);
  CHECK_FALSE(scratch.swap_in(first));
}

// rule: kv.shared-moves-once
TEST_CASE("scratch: what strangers hold too stays where it is when a group goes") {
  KvCacheManager kv({.num_blocks = 16, .block_size = 4, .num_swap_blocks = 8});
  start(kv, A, 10);
  kv.fork(A, B, 8);
  std::vector<BlockCopy> copies;
  kv.append(B, 9, copies);
  const std::vector<SequenceId> one{A}, both{A, B};
  KvScratch scratch = kv.scratch();
  REQUIRE(scratch.swap_out(one, kNow));
  CHECK(scratch.available() == kv.available() + 1);
  scratch = kv.scratch();
  REQUIRE(scratch.swap_out(both, kNow));
  CHECK(scratch.available() == 16);
}

TEST_CASE("scratch: one that borrows is not swapped out") {
  KvCacheManager kv({.num_blocks = 16, .block_size = 4, .num_swap_blocks = 8});
  start(kv, A, 8);
  kv.publish(A, range(0, 8), 8);
  kv.create(B, 0, match(kv, 6));
  const std::vector<SequenceId> group{B};
  CHECK_FALSE(kv.scratch().swap_out(group, kNow));
  std::vector<BlockSwap> moves;
  CHECK_THROWS_AS(kv.swap_out(group, moves, kNow), InvalidArgument);
  CHECK(moves.empty());
  std::vector<BlockCopy> copies;
  kv.append(B, 7, copies, kNow);
  CHECK(kv.scratch().swap_out(group, kNow));
}
