// Salts: no tenant finds what another one computed, neither whole blocks nor tokens inside one.
#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "pagedcore/error.hpp"
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

/// A sequence of this tenant, computed, published with its tail and gone.
void leave(KvCacheManager& kv, SequenceId seq, std::uint64_t salt, const std::vector<TokenId>& tokens) {
  std::vector<BlockCopy> copies;
  kv.create(seq, salt, {});
  kv.append(seq, static_cast<std::uint32_t>(tokens.size()), copies);
  kv.publish(seq, tokens, static_cast<std::uint32_t>(tokens.size()), true);
  kv.free(seq, kNow);
}

std::uint32_t found(const KvCacheManager& kv, const std::vector<TokenId>& tokens, std::uint64_t salt) {
  return kv.match_prefix(tokens, salt, static_cast<std::uint32_t>(tokens.size())).num_tokens;
}

}  // namespace

// rule: kv.tenants-share-nothing
TEST_CASE("another tenant finds no token inside a block either, whatever its salt is") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 16});
  const std::vector<TokenId> tokens = range(0, 10);
  leave(kv, A, 7, tokens);
  REQUIRE(found(kv, tokens, 7) == 10);
  // Tenants share the heads of the lists that are searched for tokens inside a block: thousands of salts meet there.
  std::uint32_t others = 0;
  for (std::uint64_t salt = 0; salt < 8192; ++salt) {
    if (salt != 7) others += found(kv, tokens, salt);
  }
  CHECK(others == 0);
}

// rule: kv.tenants-share-nothing
TEST_CASE("what tenants publish of equal tokens stays apart") {
  KvCacheManager kv({.num_blocks = 16, .block_size = 4});
  const std::vector<TokenId> tokens = range(0, 10);
  leave(kv, A, 1, tokens);
  leave(kv, B, 2, tokens);
  const PrefixMatch one = kv.match_prefix(tokens, 1, 10), two = kv.match_prefix(tokens, 2, 10);
  REQUIRE(one.num_tokens == 10);
  REQUIRE(two.num_tokens == 10);
  for (std::size_t i = 0; i < one.blocks.size(); ++i) CHECK(one.blocks[i] != two.blocks[i]);
  CHECK_THROWS_AS(kv.create(C, 1, two), InvalidArgument);
  CHECK_THROWS_AS(kv.create(C, 2, one), InvalidArgument);
  CHECK_THROWS_AS(kv.create(C, 3, kv.match_prefix(range(0, 3), 1, 3)), InvalidArgument);  // inside the first block
  kv.create(C, 2, two);
  kv.check();
}

TEST_CASE("a sequence publishes under its own salt from its first block on") {
  // Also one that began with a hit, and one whose published beginning has been evicted.
  KvCacheManager kv({.num_blocks = 4, .block_size = 4});
  std::vector<BlockCopy> copies;
  const std::vector<TokenId> tokens = range(0, 12);
  leave(kv, A, 5, range(0, 4));
  kv.create(B, 5, kv.match_prefix(tokens, 5, 12));
  kv.append(B, 8, copies);
  kv.publish(B, tokens, 8);
  CHECK(found(kv, tokens, 5) == 8);
  CHECK(found(kv, tokens, 0) == 0);
  kv.free(B, kNow);

  // The sequence's own copies of the blocks are not in the index; then those of the other one are evicted.
  KvCacheManager small({.num_blocks = 6, .block_size = 4});
  for (const SequenceId seq : {A, B}) {
    small.create(seq, 5, {});
    small.append(seq, 8, copies);
    small.publish(seq, tokens, 8);
  }
  small.free(A, kNow);
  small.create(C, 9, {});
  small.append(C, 16, copies);
  REQUIRE(found(small, tokens, 5) == 0);
  small.free(C, kNow);
  small.append(B, 12, copies);
  small.publish(B, tokens, 12);
  CHECK(found(small, tokens, 5) == 12);
  CHECK(found(small, tokens, 0) == 0);
  small.check();
}

TEST_CASE("a fork for another tenant neither publishes for its parent's nor takes what that one can find") {
  for (const std::uint32_t shared : {8u, 4u, 6u}) {
    CAPTURE(shared);
    KvCacheManager kv({.num_blocks = 16, .block_size = 4});
    std::vector<BlockCopy> copies;
    std::vector<TokenId> tokens = range(0, 8);
    kv.create(A, 1, {});
    kv.append(A, 8, copies);
    kv.publish(A, tokens, 8);
    kv.fork(A, B, shared, 2);
    tokens.resize(shared);
    while (tokens.size() < 16) tokens.push_back(static_cast<TokenId>(100 + tokens.size()));
    kv.append(B, 16, copies);
    kv.publish(B, tokens, 16);
    CHECK(found(kv, tokens, 1) == shared);  // of the parent: nothing that the fork computed
    CHECK(found(kv, tokens, 2) == 0);       // nothing at all while the shared blocks are found under the other salt
    CHECK(found(kv, range(0, 8), 1) == 8);
    kv.check();
  }
}

TEST_CASE("a fork for another tenant publishes under its salt where nothing that it shares is known") {
  KvCacheManager kv({.num_blocks = 16, .block_size = 4});
  std::vector<BlockCopy> copies;
  const std::vector<TokenId> tokens = range(0, 8);
  kv.create(A, 1, {});
  kv.append(A, 4, copies);
  kv.fork(A, B, 4, 2);
  kv.append(B, 8, copies);
  kv.publish(B, tokens, 8);
  CHECK(found(kv, tokens, 2) == 8);
  CHECK(found(kv, tokens, 1) == 0);
  kv.check();
}

TEST_CASE("events name the tenant of a prompt's first block, and the block before each other one") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4, .max_events = 16});
  const std::vector<TokenId> tokens = range(0, 10);
  leave(kv, A, 7, tokens);
  std::vector<CacheEvent> events = kv.take_events();
  REQUIRE(events.size() == 3);
  CHECK(events[0].salt == 7);
  CHECK(events[0].parent == 0);
  CHECK(events[1].salt == 0);
  CHECK(events[1].parent == events[0].id);
  CHECK(events[2].parent == events[1].id);
  CHECK(events[2].tokens == range(8, 2));
  // Then one for each block that is taken away, by its id; and one word for all when the cache is cleared.
  std::vector<BlockCopy> copies;
  kv.create(B, 0, {});
  kv.append(B, 24, copies);  // five are free, and the last block of the prefix goes first
  std::vector<CacheEvent> removed = kv.take_events();
  REQUIRE(removed.size() == 1);
  CHECK(removed[0].kind == CacheEventKind::removed);
  CHECK(removed[0].id == events[2].id);
  kv.clear_prefix_cache();
  const std::vector<CacheEvent> cleared = kv.take_events();
  REQUIRE(cleared.size() == 1);
  CHECK(cleared[0].kind == CacheEventKind::cleared);
}

// rule: kv.events-are-bounded
TEST_CASE("events are kept up to the bound, and one that is lost is said to be") {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4, .max_events = 2});
  leave(kv, A, 0, range(0, 20));  // five blocks
  const std::vector<CacheEvent> events = kv.take_events();
  REQUIRE(events.size() == 2);
  CHECK(events[0].kind == CacheEventKind::cleared);
  CHECK(events[1].kind == CacheEventKind::stored);
  CHECK(events[1].tokens == range(16, 4));
  KvCacheManager deaf({.num_blocks = 8, .block_size = 4});
  leave(deaf, A, 0, range(0, 20));
  CHECK(deaf.take_events().empty());
}
