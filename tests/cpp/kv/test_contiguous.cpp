// The contiguous baselines: the buddy allocator, and sequences in chunks.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kv/buddy_allocator.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/kv_cache.hpp"

using namespace pagedcore;
using kv::BuddyAllocator;
using kv::Chunk;

namespace {

KvCacheConfig config(AllocationPolicy allocation, std::uint32_t blocks = 983) {
  KvCacheConfig made;
  made.num_blocks = blocks;
  made.allocation = allocation;
  return made;
}

}  // namespace

TEST_CASE("983 blocks are cut into 7 x 128, 64, 16, 4, 2 and 1") {
  const BuddyAllocator buddy(983, 7);
  BuddyAllocator::Counts expected{};
  expected[7] = 7;
  expected[6] = expected[4] = expected[2] = expected[1] = expected[0] = 1;
  CHECK(buddy.counts() == expected);
  CHECK(buddy.available() == 983);
}

TEST_CASE("an allocation takes the smallest chunk, splits it and keeps the low half; buddies merge again") {
  BuddyAllocator buddy(983, 7);
  CHECK(buddy.allocate(3).first == 960);  // of 16: split into 8 + 8
  CHECK(buddy.allocate(3).first == 968);
  const Chunk chunk = buddy.allocate(3);  // of 64: 32 + 16 + 8
  CHECK(chunk.first == 896);
  CHECK(chunk.size() == 8);
  CHECK(buddy.counts()[5] == 1);
  buddy.free(chunk);
  CHECK(buddy.counts()[6] == 1);
  CHECK(buddy.counts()[5] == 0);
  buddy.check();
}

TEST_CASE("random allocations never overlap, agree with the counts, and leave nothing behind") {
  std::mt19937 random(7);
  for (const std::uint32_t size : {1u, 31u, 983u, 3754u}) {
    BuddyAllocator buddy(size, 7);
    const BuddyAllocator fresh = buddy;
    std::vector<Chunk> held;
    std::vector<int> owner(size);
    for (int i = 0; i < 20000; ++i) {
      if (!held.empty() && random() % 2 == 0) {
        std::swap(held[random() % held.size()], held.back());
        for (std::uint32_t b = 0; b < held.back().size(); ++b) --owner[held.back().first + b];
        buddy.free(held.back());
        held.pop_back();
      } else {
        const std::uint32_t order = random() % 8;
        BuddyAllocator::Counts counts = buddy.counts();
        if (!BuddyAllocator::take(counts, order)) continue;
        held.push_back(buddy.allocate(order));
        REQUIRE(buddy.counts() == counts);
        for (std::uint32_t b = 0; b < held.back().size(); ++b) REQUIRE(++owner.at(held.back().first + b) == 1);
      }
      if (i % 1000 == 0) buddy.check();
    }
    for (const Chunk chunk : held) buddy.free(chunk);
    CHECK(buddy.counts() == fresh.counts());
    buddy.check();
  }
}

TEST_CASE("what the policies set aside") {
  const KvCacheManager max(config(AllocationPolicy::max)), pow2(config(AllocationPolicy::pow2)),
      oracle(config(AllocationPolicy::oracle));
  CHECK(max.reservation(7, 25) == 2048);
  CHECK(pow2.reservation(7, 25) == 39);
  CHECK(pow2.reservation(7, 32) == 39);
  CHECK(pow2.reservation(1500, 513) == 2048);
  CHECK(oracle.reservation(7, 25) == 32);
}

TEST_CASE("15,728 slots hold exactly seven sequences of Orca (Max)") {
  KvCacheManager cache(config(AllocationPolicy::max));
  for (std::uint64_t id = 1; id <= 7; ++id) cache.create_reserved(SequenceId{id}, 1, cache.reservation(10, 20));
  CHECK_THROWS_AS(cache.create_reserved(SequenceId{8}, 1, 2048), OutOfMemory);
  cache.check();
  CHECK(cache.counts().reserved == 7 * 128);
  cache.free(SequenceId{3}, StepId{5});
  CHECK_FALSE(cache.scratch().create({}, 0, 0, {1, 2048}));  // a step may still read it
  cache.complete(StepId{5});
  CHECK(cache.scratch().create({}, 0, 0, {1, 2048}));
  CHECK_FALSE(cache.scratch().create({}, 0, 0, {2, 2048}));
  cache.create_reserved(SequenceId{8}, 1, 2048);
  cache.check();
}

// rule: kv.chunk-is-contiguous
TEST_CASE("a sequence fills its chunk in order, and a fork copies all of it into one of its own") {
  KvCacheConfig small = config(AllocationPolicy::oracle, 32);
  small.block_size = 4;
  small.max_reservation = 32;
  KvCacheManager cache(small);
  std::vector<BlockCopy> copies;
  cache.create_reserved(SequenceId{1}, 2, 14);  // 4 blocks each
  cache.append(SequenceId{1}, 6, copies);
  const std::vector<BlockId> table(cache.block_table(SequenceId{1}).begin(), cache.block_table(SequenceId{1}).end());
  REQUIRE(table.size() == 2);
  CHECK(raw(table[1]) == raw(table[0]) + 1);
  CHECK(copies.empty());
  cache.fork(SequenceId{1}, SequenceId{2}, 6);
  cache.append(SequenceId{1}, 7, copies);  // in place: the other one has its own tokens soon
  CHECK(copies.empty());
  cache.append(SequenceId{2}, 7, copies, StepId{1});
  REQUIRE(copies.size() == 2);
  const auto own = cache.block_table(SequenceId{2});
  CHECK(copies[0] == BlockCopy{table[0], own[0], 4});
  CHECK(copies[1] == BlockCopy{table[1], own[1], 2});
  CHECK(cache.counts().shared == 0);
  cache.check();
  cache.fork(SequenceId{1}, SequenceId{3}, 6);
  CHECK_THROWS_AS(cache.append(SequenceId{3}, 7, copies), OutOfMemory);  // a third of two
  cache.free(SequenceId{3}, StepId{0});
  CHECK_THROWS_AS(cache.append(SequenceId{1}, 17, copies), InvalidArgument);
  cache.free(SequenceId{1}, StepId{0});
  CHECK(cache.counts().reserved == 8);  // as long as the group has members
  cache.free(SequenceId{2}, StepId{0});
  CHECK(cache.counts().reserved == 0);
  cache.check();
}

TEST_CASE("a contiguous cache refuses what it does not do") {
  KvCacheConfig bad = config(AllocationPolicy::max);
  bad.num_swap_blocks = 4;
  CHECK_THROWS_WITH_AS(KvCacheManager{bad}, doctest::Contains("4 swap blocks"), InvalidArgument);
  bad.num_swap_blocks = 0;
  bad.max_reservation = 0;
  CHECK_THROWS_AS(KvCacheManager{bad}, InvalidArgument);
  KvCacheManager cache(config(AllocationPolicy::max));
  CHECK_THROWS_AS(cache.create_reserved(SequenceId{1}, 1, 2049), InvalidArgument);
  CHECK_THROWS_AS(cache.create_reserved(SequenceId{1}, 0, 20), InvalidArgument);
  CHECK_THROWS_AS(cache.create(SequenceId{1}, 0, {}), InvalidArgument);
  CHECK_THROWS_AS(KvCacheManager(config(AllocationPolicy::paged)).create_reserved(SequenceId{1}, 1, 9),
                  InvalidArgument);
  cache.check();
}
