// A sequence is made in two halves: prepare() may fail and shows nowhere, start() cannot. And the two ways of
// allocation behind one interface.
#include <doctest/doctest.h>

#include <vector>

#include "pagedcore/error.hpp"
#include "pagedcore/kv_cache.hpp"

using namespace pagedcore;

namespace {

KvCacheConfig paged() {
  KvCacheConfig config;
  config.num_blocks = 8;
  config.block_size = 4;
  return config;
}

KvCacheConfig reserved() {
  KvCacheConfig config = paged();
  config.num_blocks = 16;
  config.allocation = AllocationPolicy::oracle;
  config.max_reservation = 32;
  return config;
}

/// The blocks that sequence `id` gets for `length` tokens.
std::vector<BlockId> blocks_of(KvCacheManager& cache, std::uint64_t id, std::uint32_t length) {
  std::vector<BlockCopy> copies;
  const auto table = cache.append(SequenceId{id}, length, copies);
  return {table.begin(), table.end()};
}

/// Three cached prefixes of two blocks each, least recently used first.
std::vector<std::vector<TokenId>> fill(KvCacheManager& cache) {
  std::vector<std::vector<TokenId>> prompts;
  for (std::uint64_t id = 1; id <= 3; ++id) {
    prompts.push_back(std::vector<TokenId>(8, static_cast<TokenId>(id)));
    cache.create(SequenceId{id}, 0, {});
    blocks_of(cache, id, 8);
    cache.publish(SequenceId{id}, prompts.back(), 8);
    cache.free(SequenceId{id}, StepId{0});
  }
  return prompts;
}

}  // namespace

// rule: kv.two-halves
TEST_CASE("a sequence that is prepared and freed leaves blocks in the order of their reuse") {
  KvCacheManager cache(paged()), twin(paged());
  const auto prompts = fill(cache);
  fill(twin);
  const PrefixMatch match = cache.match_prefix(prompts[0], 0, 8);
  REQUIRE(match.num_tokens == 8);
  cache.prepare(SequenceId{9}, 12, 0, match, {});
  cache.check();
  CHECK(cache.contains(SequenceId{9}));
  CHECK(cache.length(SequenceId{9}) == 0);
  CHECK(cache.counts().used == 0);
  cache.free(SequenceId{9}, StepId{0});
  cache.check();
  for (KvCacheManager* each : {&cache, &twin}) each->create(SequenceId{10}, 0, {});
  CHECK(blocks_of(cache, 10, 32) == blocks_of(twin, 10, 32));
}

// rule: kv.two-halves
TEST_CASE("prepared and started is created; prepared and started as a fork is forked") {
  KvCacheManager cache(paged());
  const auto prompts = fill(cache);
  const PrefixMatch match = cache.match_prefix(prompts[1], 0, 8);
  cache.prepare(SequenceId{9}, 12, 0, match, {});
  cache.start(SequenceId{9}, 0, match, {});
  CHECK(cache.length(SequenceId{9}) == 8);
  CHECK(cache.counts().used == 2);
  cache.prepare_fork(SequenceId{9}, SequenceId{10}, 5);
  CHECK(cache.counts().shared == 0);
  cache.start_fork(SequenceId{9}, SequenceId{10}, 5);
  CHECK(cache.length(SequenceId{10}) == 5);
  CHECK(cache.counts().shared == 2);
  cache.check();
  CHECK_THROWS_AS(cache.prepare(SequenceId{9}, 4, 0, {}, {}), InvalidArgument);      // exists
  CHECK_THROWS_AS(cache.prepare(SequenceId{11}, 4, 7, match, {}), InvalidArgument);  // of another tenant
  CHECK_THROWS_AS(cache.prepare_fork(SequenceId{9}, SequenceId{11}, 9), InvalidArgument);
  CHECK_FALSE(cache.contains(SequenceId{11}));
}

TEST_CASE("a group that is prepared takes no chunk until it is started") {
  KvCacheManager cache(reserved()), twin(reserved());
  const KvGroup group{2, 14};
  cache.prepare(SequenceId{1}, 14, 0, {}, group);
  cache.prepare(SequenceId{2}, 14, 0, {}, group);
  cache.check();
  CHECK(cache.counts().reserved == 0);
  cache.free(SequenceId{1}, StepId{0});
  cache.start(SequenceId{2}, 0, {}, group);
  twin.create_reserved(SequenceId{2}, 2, 14);
  CHECK(cache.counts().reserved == 8);
  CHECK(blocks_of(cache, 2, 9) == blocks_of(twin, 2, 9));
  cache.prepare_fork(SequenceId{2}, SequenceId{3}, 9);
  cache.free(SequenceId{3}, StepId{0});  // never started: no member of the group
  cache.fork(SequenceId{2}, SequenceId{3}, 9);
  blocks_of(cache, 3, 10);
  cache.check();
  cache.free(SequenceId{2}, StepId{0});
  CHECK(cache.counts().reserved == 8);
  cache.free(SequenceId{3}, StepId{0});
  CHECK(cache.counts().reserved == 0);
  cache.check();
}

TEST_CASE("what the two ways of allocation say of themselves") {
  const KvCacheManager one(paged()), other(reserved());
  CHECK(one.traits().shares);
  CHECK(one.traits().grows);
  CHECK_FALSE(other.traits().shares);
  CHECK_FALSE(other.traits().grows);
  CHECK(one.set_aside(7, 9, 8).needed == 0);
  CHECK(one.why_never(1000, 1000, 1000).empty());
  CHECK(other.set_aside(7, 9, 8).needed == 8);
  CHECK(other.set_aside(7, 9, 8).unneeded == 0);
  CHECK(other.why_never(4, 7, 9).empty());
  CHECK(other.why_never(5, 7, 9).find("has 4 such chunks") != std::string::npos);
  CHECK(other.why_never(1, 30, 9).find("at most 32") != std::string::npos);
  KvScratch scratch = other.scratch();
  CHECK(scratch.create({}, 7, 1000, {4, 16}));  // blocks to spare are no matter: chunks are all that counts
  CHECK_FALSE(scratch.create({}, 7, 0, {1, 16}));
}
