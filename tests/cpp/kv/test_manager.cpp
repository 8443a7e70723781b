#include <doctest/doctest.h>

#include <numeric>
#include <string>
#include <vector>

#include "pagedcore/error.hpp"
#include "pagedcore/kv_cache.hpp"

using namespace pagedcore;

namespace {

using Tokens = std::vector<TokenId>;
using Blocks = std::vector<BlockId>;

Tokens range(TokenId first, std::size_t count) {
  Tokens tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

Blocks table(const KvCacheManager& kv, SequenceId seq) {
  const auto blocks = kv.block_table(seq);
  return {blocks.begin(), blocks.end()};
}

constexpr SequenceId A{1}, B{2}, C{3};
constexpr StepId kNow{0};

KvCacheManager make(std::uint32_t blocks, std::uint32_t block_size = 4, bool caching = true) {
  return KvCacheManager({.num_blocks = blocks, .block_size = block_size, .enable_prefix_caching = caching});
}

}  // namespace

TEST_CASE("sizes outside the documented ranges are refused with their limits") {
  CHECK_THROWS_AS(make(0), InvalidArgument);
  CHECK_THROWS_AS(make(0xffffffffu), InvalidArgument);
  CHECK_THROWS_AS(make(1, 0), InvalidArgument);
  CHECK_THROWS_WITH_AS(make(1, 65537), "KV cache option block_size = 65537 is out of range: it must lie in [1, 65536]",
                       InvalidArgument);
  CHECK_THROWS_AS(validate(KvCacheConfig{.num_blocks = 1, .num_swap_blocks = 0x80000000u}), InvalidArgument);
  CHECK_THROWS_AS(validate(KvCacheConfig{.num_blocks = 1, .max_reservation = 0}), InvalidArgument);
  CHECK_THROWS_AS(validate(KvCacheConfig{.num_blocks = 1, .max_events = 0x80000000u}), InvalidArgument);
  KvCacheConfig windows{.num_blocks = 1, .windows = std::vector<std::uint32_t>(64)};
  validate(windows);
  windows.windows.push_back(0);
  CHECK_THROWS_WITH_AS(validate(windows), "windows names 65 groups of layers; there may be 64 at most",
                       InvalidArgument);
  const KvCacheManager kv = make(3, 4);
  CHECK(kv.blocks_for(0) == 0);
  CHECK(kv.blocks_for(4) == 1);
  CHECK(kv.blocks_for(5) == 2);
  CHECK(kv.blocks_for(~0ull) == 0xffffffffu);
}

// rule: kv.waste-under-one-block
TEST_CASE("append takes a block only when all earlier ones are full") {
  KvCacheManager kv = make(4);
  std::vector<BlockCopy> copies;
  kv.create(A, 0, {});
  for (std::uint32_t length = 1; length <= 16; ++length) {
    kv.append(A, length, copies);
    CHECK(kv.block_table(A).size() == (length + 3) / 4);
    CHECK(kv.length(A) == length);
  }
  CHECK(copies.empty());
  kv.check();
}

// rule: kv.throw-changes-nothing
TEST_CASE("calls that throw change nothing") {
  KvCacheManager kv = make(3);
  std::vector<BlockCopy> copies;
  kv.create(A, 0, {});
  kv.append(A, 6, copies);
  kv.fork(A, B, 6);
  const auto unchanged = [&] {
    kv.check();
    CHECK(kv.counts().used == 2);
    CHECK(kv.length(A) == 6);
    CHECK(kv.block_table(A).size() == 2);
    CHECK(copies.empty());
    CHECK_FALSE(kv.contains(C));
  };
  CHECK_THROWS_AS(kv.append(B, 9, copies), OutOfMemory);  // a copy and a new block, and one is left
  unchanged();
  CHECK_THROWS_AS(kv.append(A, 5, copies), InvalidArgument);
  CHECK_THROWS_AS(kv.append(C, 1, copies), InvalidArgument);
  CHECK_THROWS_AS(kv.create(A, 0, {}), InvalidArgument);
  CHECK_THROWS_AS(kv.create(C, 0, {.blocks = {BlockId{0}}, .num_tokens = 4}), InvalidArgument);
  CHECK_THROWS_AS(kv.create(C, 0, {.blocks = {}, .num_tokens = 4}), InvalidArgument);
  CHECK_THROWS_AS(kv.fork(A, C, 7), InvalidArgument);
  CHECK_THROWS_AS(kv.fork(A, B, 1), InvalidArgument);
  CHECK_THROWS_AS(kv.publish(A, range(0, 8), 8), InvalidArgument);
  CHECK_THROWS_AS(kv.free(C, kNow), InvalidArgument);
  CHECK_THROWS_AS(kv.references(BlockId{3}), InvalidArgument);
  unchanged();
  kv.append(B, 8, copies);
  CHECK(copies.size() == 1);
}

// rule: kv.shared-is-copied-before-written
TEST_CASE("n samples need n - 1 copies when the prompt ends inside a block, and none when it does not") {
  for (const std::uint32_t prompt : {6u, 8u}) {
    KvCacheManager kv = make(32);
    std::vector<BlockCopy> copies;
    kv.create(A, 0, {});
    kv.append(A, prompt, copies);
    for (std::uint64_t i = 0; i < 4; ++i) kv.fork(A, SequenceId{10 + i}, prompt);
    for (const std::uint64_t seq : {1u, 10u, 11u, 12u, 13u}) kv.append(SequenceId{seq}, prompt + 1, copies);
    CHECK(copies.size() == (prompt % 4 == 0 ? 0 : 4));
    for (const BlockCopy& copy : copies) CHECK(copy.num_tokens == prompt % 4);
    CHECK(kv.counts().used == prompt / 4 + 5);
    CHECK(kv.counts().shared == prompt / 4);
    kv.check();
  }
}

// rule: kv.shared-is-copied-before-written
TEST_CASE("a fork at a shorter length copies only what it shares") {
  KvCacheManager kv = make(8);
  std::vector<BlockCopy> copies;
  kv.create(A, 0, {});
  kv.append(A, 8, copies);
  kv.fork(A, B, 5);
  kv.append(B, 6, copies);
  CHECK(copies == std::vector<BlockCopy>{{BlockId{1}, BlockId{2}, 1}});
  CHECK(table(kv, A) == Blocks{BlockId{0}, BlockId{1}});
  kv.check();
}

// rule: kv.shared-is-copied-before-written
TEST_CASE("the last holder of a published block withdraws it before writing") {
  KvCacheManager kv = make(8);
  std::vector<BlockCopy> copies;
  const Tokens tokens = range(0, 8);
  kv.create(A, 0, {});
  kv.append(A, 8, copies);
  kv.publish(A, tokens, 8);
  kv.fork(A, B, 6);
  kv.free(A, kNow);
  kv.append(B, 7, copies);
  CHECK(copies.empty());
  CHECK(kv.match_prefix(tokens, 0, 8).num_tokens == 4);
  kv.check();
}

// rule: kv.tenants-share-nothing, kv.cleared-stays-cleared
TEST_CASE("published prefixes are found per salt and up to the limit") {
  KvCacheManager kv = make(8);
  std::vector<BlockCopy> copies;
  const Tokens tokens = range(0, 11);
  kv.create(A, 7, {});
  kv.append(A, 11, copies);
  kv.publish(A, tokens, 5);
  CHECK(kv.match_prefix(tokens, 7, 100).num_tokens == 4);
  kv.publish(A, tokens, 11);
  CHECK(kv.match_prefix(tokens, 7, 100).num_tokens == 8);
  CHECK(kv.match_prefix(tokens, 7, 7).num_tokens == 7);
  CHECK(kv.match_prefix(tokens, 7, 7, true).num_tokens == 4);
  CHECK(kv.match_prefix(tokens, 0, 100).num_tokens == 0);
  CHECK(kv.match_prefix(range(1, 11), 7, 100).num_tokens == 0);
  kv.free(A, kNow);
  CHECK(kv.counts().cached == 2);
  CHECK(kv.counts().free == 6);

  const PrefixMatch match = kv.match_prefix(tokens, 7, 100);
  CHECK_THROWS_AS(kv.create(B, 8, match), InvalidArgument);  // another tenant's
  kv.create(B, 7, match);
  CHECK(kv.length(B) == 8);
  CHECK(kv.counts().cached == 0);
  kv.clear_prefix_cache();
  CHECK_THROWS_AS(kv.create(C, 7, match), InvalidArgument);  // stale
  kv.append(B, 12, copies);
  kv.publish(B, range(0, 12), 12);
  CHECK(kv.match_prefix(tokens, 7, 100).num_tokens == 0);  // computed before the clear
  kv.check();
}

TEST_CASE("whoever publishes may leave out the tokens that are known already, and no others") {
  const std::vector<TokenId> tokens = range(0, 16);
  const auto from = [&](std::size_t first) { return std::span(tokens).subspan(first); };
  std::vector<BlockCopy> copies;
  KvCacheManager kv = make(8);
  kv.create(A, 0, {});
  kv.append(A, 12, copies);
  CHECK(kv.published(A) == 0);
  kv.publish(A, tokens, 8);
  CHECK(kv.published(A) == 8);
  CHECK_THROWS_AS(kv.publish(A, from(12), 12, false, 12), InvalidArgument);
  CHECK_THROWS_AS(kv.publish(A, from(8).first(3), 12, false, 8), InvalidArgument);
  CHECK(kv.match_prefix(tokens, 0, 16).num_tokens == 8);
  kv.publish(A, from(8).first(4), 12, false, 8);
  CHECK(kv.match_prefix(tokens, 0, 16).num_tokens == 12);
  kv.append(A, 14, copies);
  kv.publish(A, from(12).first(2), 14, true, 12);
  CHECK(kv.match_prefix(tokens, 0, 16).num_tokens == 14);
  kv.check();
  kv.clear_prefix_cache();
  CHECK(kv.published(A) == kMostLength);

  // What A has published stands on B's block of the same tokens: when that goes, A is to begin again.
  KvCacheManager small = make(5);
  for (const SequenceId seq : {A, B}) {
    small.create(seq, 0, {});
    small.append(seq, seq == A ? 8 : 4, copies);
  }
  small.publish(B, tokens, 4);
  small.publish(A, tokens, 4);
  CHECK(small.published(A) == 4);
  small.free(B, kNow);
  small.create(C, 0, {});
  small.append(C, 12, copies);
  CHECK(small.published(A) == 0);
  CHECK_THROWS_AS(small.publish(A, from(4), 8, false, 4), InvalidArgument);
  small.publish(A, tokens, 8);
  CHECK(small.match_prefix(tokens, 0, 8).num_tokens == 8);
  small.check();
}

// rule: kv.reuse-order
TEST_CASE("the tail of a cached prefix is evicted before its head") {
  KvCacheManager kv = make(4);
  std::vector<BlockCopy> copies;
  const Tokens tokens = range(0, 16);
  kv.create(A, 0, {});
  kv.append(A, 16, copies);
  kv.publish(A, tokens, 16);
  kv.free(A, kNow);
  kv.create(B, 0, {});
  for (std::uint32_t taken = 1; taken <= 4; ++taken) {
    kv.append(B, 4 * taken, copies);
    CHECK(kv.match_prefix(tokens, 0, 16).num_tokens == 16 - 4 * taken);
    kv.check();
  }
}

// rule: kv.tables-never-change
TEST_CASE("a duplicate keeps its own block, and takes over when the first is evicted") {
  KvCacheManager kv = make(6);
  std::vector<BlockCopy> copies;
  const Tokens tokens = range(0, 12);
  for (const SequenceId seq : {A, B}) {
    kv.create(seq, 0, {});
    kv.append(seq, 8, copies);
  }
  kv.publish(A, tokens, 8);
  kv.publish(B, tokens, 8);
  CHECK(kv.match_prefix(tokens, 0, 8).blocks == table(kv, A));
  kv.free(A, kNow);
  kv.create(C, 0, {});
  kv.append(C, 16, copies);  // evicts A's blocks
  CHECK(kv.match_prefix(tokens, 0, 8).num_tokens == 0);
  kv.free(C, kNow);
  kv.append(B, 12, copies);
  kv.publish(B, tokens, 12);
  CHECK(kv.match_prefix(tokens, 0, 12).blocks == table(kv, B));
  kv.check();
}

// rule: kv.fenced-until-read
TEST_CASE("blocks freed behind a step in flight are neither available nor lost") {
  KvCacheManager kv = make(4);
  std::vector<BlockCopy> copies;
  const Tokens tokens = range(0, 8);
  kv.create(A, 0, {});
  kv.append(A, 8, copies);
  kv.publish(A, tokens, 4);
  kv.free(A, StepId{3});
  CHECK(kv.counts().in_flight == 2);
  CHECK(kv.available() == 2);
  kv.create(B, 0, {});
  CHECK_THROWS_AS(kv.append(B, 12, copies), OutOfMemory);
  kv.create(C, 0, kv.match_prefix(tokens, 0, 8));  // a published block may be read again at once
  CHECK(kv.counts().in_flight == 1);
  kv.complete(StepId{3});
  kv.append(B, 12, copies);
  CHECK(kv.available() == 0);
  kv.check();
}

TEST_CASE("without prefix caching nothing is ever cached") {
  KvCacheManager kv = make(4, 4, false);
  std::vector<BlockCopy> copies;
  kv.create(A, 0, {});
  kv.append(A, 8, copies);
  kv.publish(A, range(0, 8), 8);
  kv.fork(A, B, 8);
  kv.clear_prefix_cache();
  kv.free(A, kNow);
  kv.free(B, kNow);
  CHECK(kv.match_prefix(range(0, 8), 0, 8).num_tokens == 0);
  CHECK(kv.counts().free == 4);
  kv.check();
}
