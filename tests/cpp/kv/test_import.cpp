// Prefixes that come from elsewhere: blocks are taken for them, found, evicted and counted as all others.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "pagedcore/error.hpp"
#include "pagedcore/kv_cache.hpp"

using namespace pagedcore;

namespace {

std::vector<TokenId> tokens_from(TokenId first, std::size_t count) {
  std::vector<TokenId> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::size_t taken(const std::vector<BlockId>& blocks) {
  return static_cast<std::size_t>(std::ranges::count_if(blocks, [](BlockId block) { return block != kNoBlock; }));
}

std::vector<std::uint8_t> all(std::size_t blocks) { return std::vector<std::uint8_t>(blocks, 1); }

}  // namespace

// rule: kv.imported-is-cached
TEST_CASE("an imported prefix is cached, found under its salt only, and imported once") {
  KvCacheManager cache({.num_blocks = 10, .block_size = 4});
  const auto tokens = tokens_from(0, 14);
  const auto blocks = cache.import_prefix(tokens, 7, all(3));
  REQUIRE(taken(blocks) == 3);
  CHECK(cache.counts().cached == 3);
  CHECK(cache.counts().used == 0);
  CHECK(cache.cached_blocks(tokens, 7) == blocks);
  CHECK(cache.cached_blocks(tokens, 8).empty());
  CHECK(cache.match_prefix(tokens, 7, 14).num_tokens == 12);
  CHECK(cache.match_prefix(tokens, 8, 14).num_tokens == 0);
  CHECK(taken(cache.import_prefix(tokens, 7, all(3))) == 0);
  CHECK(cache.counts().cached == 3);
  cache.check();
}

TEST_CASE("what is not offered ends the chain, and what is short too") {
  KvCacheManager cache({.num_blocks = 5, .block_size = 4});
  const auto tokens = tokens_from(0, 32);
  CHECK(taken(cache.import_prefix(tokens, 0, std::vector<std::uint8_t>{1, 0, 1, 1, 1, 1, 1, 1})) == 1);
  CHECK(cache.match_prefix(tokens, 0, 32).num_tokens == 4);
  // What goes on from there: the first is there already, the others take what is left.
  CHECK(taken(cache.import_prefix(tokens, 0, all(8))) == 4);
  CHECK(cache.match_prefix(tokens, 0, 32).num_tokens == 20);
  CHECK(cache.counts().cached == 5);
  cache.check();
  // Another prefix evicts it from its end.
  CHECK(taken(cache.import_prefix(tokens_from(100, 8), 0, all(2))) == 2);
  CHECK(cache.match_prefix(tokens, 0, 32).num_tokens == 12);
  cache.check();
  CHECK_THROWS_AS(cache.import_prefix(tokens, 0, all(7)), InvalidArgument);
  CHECK(KvCacheManager({.num_blocks = 5, .enable_prefix_caching = false}).import_prefix(tokens, 0, all(2)).empty());
}

TEST_CASE("blocks that sequences hold are not taken") {
  KvCacheManager cache({.num_blocks = 6, .block_size = 4});
  std::vector<BlockCopy> copies;
  cache.create(SequenceId{1}, 0, {});
  cache.append(SequenceId{1}, 16, copies);
  CHECK(taken(cache.import_prefix(tokens_from(50, 16), 0, all(4))) == 2);
  CHECK(cache.counts().used == 4);
  cache.check();
}

// rule: kv.windows-let-go
TEST_CASE("with windows blocks of other groups come one by one") {
  KvCacheManager cache({.num_blocks = 20, .block_size = 4, .windows = {0, 8}});
  const auto tokens = tokens_from(0, 24);
  std::vector<std::uint8_t> offered(12);
  for (std::size_t i = 0; i < 6; ++i) offered[2 * i] = 1;
  CHECK(taken(cache.import_prefix(tokens, 0, offered)) == 6);
  CHECK(cache.match_prefix(tokens, 0, 24).num_tokens == 0);  // the window's blocks are missing
  offered[9] = offered[11] = 1;
  const auto blocks = cache.import_prefix(tokens, 0, offered);
  CHECK(taken(blocks) == 2);
  CHECK(blocks[9] != kNoBlock);
  CHECK(cache.match_prefix(tokens, 0, 24).num_tokens == 24);
  CHECK(taken(cache.cached_blocks(tokens, 0)) == 8);
  cache.check();
}

TEST_CASE("imports among sequences that come and go: the books add up") {
  std::mt19937 random(3);
  KvCacheManager cache({.num_blocks = 30, .block_size = 4, .windows = {0, 8}});
  std::vector<BlockCopy> copies;
  std::vector<std::uint64_t> live;
  std::uint64_t next = 1, step = 0;
  for (int i = 0; i < 3000; ++i) {
    const auto tokens = tokens_from(static_cast<TokenId>(random() % 3 * 1000), 4 * (1 + random() % 6));
    const std::uint64_t salt = random() % 2;
    switch (random() % 4) {
      case 0: {
        std::vector<std::uint8_t> offered(tokens.size() / 4 * 2);
        for (auto& one : offered) one = random() % 4 != 0;
        cache.import_prefix(tokens, salt, offered);
        break;
      }
      case 1: {
        const auto length = static_cast<std::uint32_t>(tokens.size());
        const PrefixMatch match = cache.match_prefix(tokens, salt, length - 1);
        KvScratch scratch = cache.scratch();
        if (!scratch.create(match, length)) break;
        cache.create(SequenceId{next}, salt, match);
        copies.clear();
        cache.append(SequenceId{next}, length, copies, StepId{++step});
        cache.publish(SequenceId{next}, tokens, length);
        live.push_back(next++);
        break;
      }
      case 2:
        if (live.empty()) break;
        cache.free(SequenceId{live.back()}, StepId{step});
        live.pop_back();
        break;
      default:
        cache.complete(StepId{step});
    }
    const KvCacheCounts now = cache.counts();
    REQUIRE(now.free + now.cached + now.in_flight + now.used == now.total);
    cache.check();
  }
}
