// Fences of the contiguous baselines: chunks, and the copies that a fork makes into one of its own.
#include <doctest/doctest.h>

#include <set>
#include <vector>

#include "pagedcore/error.hpp"
#include "pagedcore/kv_cache.hpp"

using namespace pagedcore;

namespace {

constexpr SequenceId A{1}, B{2}, C{3}, D{4};

KvCacheManager make(std::uint32_t blocks) {
  return KvCacheManager(
      {.num_blocks = blocks, .block_size = 4, .allocation = AllocationPolicy::max, .max_reservation = 16});
}

}  // namespace

// rule: kv.chunk-is-contiguous, kv.fenced-until-read
TEST_CASE("a chunk waits for the last steps of all members of its group, in whatever order they go") {
  KvCacheManager kv = make(8);
  std::vector<BlockCopy> copies;
  kv.create_reserved(A, 2, 16);
  kv.append(A, 5, copies);
  kv.fork(A, B, 5);
  kv.append(B, 6, copies);
  kv.free(B, StepId{9});
  kv.free(A, StepId{3});
  kv.complete(StepId{3});
  CHECK(kv.counts().reserved == 8);
  CHECK_FALSE(kv.scratch().create({}, 0, 0, {1, 16}));
  kv.complete(StepId{9});
  CHECK(kv.counts().reserved == 0);
  kv.check();
}

TEST_CASE("a step that has completed stays so for chunks too") {
  KvCacheManager kv = make(8);
  std::vector<BlockCopy> copies;
  kv.create_reserved(A, 2, 16);
  kv.append(A, 5, copies);
  kv.complete(StepId{5});
  kv.complete(StepId{2});
  kv.free(A, StepId{4});
  CHECK(kv.counts().reserved == 0);
}

TEST_CASE("forks whose parent is gone copy its blocks out of a chunk that nobody has taken yet") {
  KvCacheManager kv = make(12);
  std::vector<BlockCopy> copies;
  kv.create_reserved(A, 3, 16);
  kv.append(A, 9, copies);
  kv.fork(A, B, 9);
  kv.fork(A, C, 9);
  kv.free(A, StepId{1});  // its chunk is spare, and B and C are still to copy from it
  kv.append(B, 10, copies, StepId{2});
  kv.append(C, 10, copies, StepId{2});
  REQUIRE(copies.size() == 6);
  std::set<BlockId> sources, copied;
  for (const BlockCopy& copy : copies) {
    sources.insert(copy.src);
    CHECK(copied.insert(copy.dst).second);
  }
  for (const BlockId block : copied) CHECK_FALSE(sources.contains(block));
  // The last of them to copy leaves the blocks behind its step.
  kv.complete(StepId{1});
  CHECK(kv.counts().in_flight == 3);
  kv.complete(StepId{2});
  CHECK(kv.counts().in_flight == 0);
  kv.check();
}

TEST_CASE("a group gets all of its chunks or none") {
  KvCacheManager kv = make(12);  // three chunks of four blocks
  kv.create_reserved(A, 2, 16);
  CHECK_FALSE(kv.scratch().create({}, 0, 0, {2, 16}));
  CHECK(kv.scratch().create({}, 0, 0, {1, 16}));
  CHECK_THROWS_AS(kv.create_reserved(B, 2, 16), OutOfMemory);
  CHECK_FALSE(kv.contains(B));
  CHECK(kv.counts().reserved == 8);
  kv.check();
  kv.create_reserved(C, 1, 16);
  CHECK(kv.counts().reserved == 12);
  kv.check();
}
