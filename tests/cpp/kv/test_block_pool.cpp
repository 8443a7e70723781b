#include <doctest/doctest.h>

#include "kv/block_pool.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;
using kv::BlockPool;

// rule: kv.every-block-in-one-place
TEST_CASE("a fresh pool hands out every block once, in order") {
  BlockPool pool(3);
  for (std::uint32_t i = 0; i < 3; ++i) CHECK(pool.take() == BlockId{i});
  CHECK(pool.available() == 0);
  CHECK_THROWS_AS(pool.take(), Corrupt);
  pool.check();
}

// rule: kv.reuse-order
TEST_CASE("free blocks are reused latest first and before cached ones, cached ones oldest first") {
  BlockPool pool(4);
  for (int i = 0; i < 4; ++i) pool.take();
  pool.set_cached(BlockId{0}, true);
  pool.set_cached(BlockId{2}, true);
  for (const std::uint32_t block : {2u, 1u, 0u, 3u}) pool.release(BlockId{block}, StepId{0});
  CHECK(pool.counts().cached == 2);
  CHECK(pool.counts().free == 2);
  CHECK(pool.take() == BlockId{3});
  CHECK(pool.take() == BlockId{1});
  CHECK(pool.next() == BlockId{2});
  CHECK_THROWS_AS(pool.take(), Corrupt);  // still cached: the index has to let go first
  pool.set_cached(BlockId{2}, false);
  CHECK(pool.take() == BlockId{2});
  pool.hold(BlockId{0});  // revived
  CHECK(pool.available() == 0);
  pool.check();
}

// rule: kv.fenced-until-read
TEST_CASE("a released block waits for every step that may read it") {
  BlockPool pool(2);
  const BlockId block = pool.take();
  pool.hold(block);
  CHECK(pool.counts().shared == 1);
  pool.release(block, StepId{5});
  pool.release(block, StepId{3});  // the last release is not the latest reader
  CHECK(pool.counts().in_flight == 1);
  CHECK(pool.available() == 1);
  pool.complete(StepId{4});
  CHECK(pool.counts().in_flight == 1);
  pool.complete(StepId{5});
  CHECK(pool.counts().in_flight == 0);
  CHECK(pool.available() == 2);
  pool.check();
}

TEST_CASE("a block revived in flight keeps its fence") {
  BlockPool pool(1);
  const BlockId block = pool.take();
  pool.set_cached(block, true);
  pool.release(block, StepId{7});
  pool.hold(block);
  CHECK(pool.counts().in_flight == 0);
  pool.release(block, StepId{0});
  CHECK(pool.counts().in_flight == 1);
  pool.complete(StepId{7});
  CHECK(pool.counts().cached == 1);
  pool.check();
}

TEST_CASE("an older fence behind a later one waits with it") {
  BlockPool pool(2);
  const BlockId first = pool.take(), second = pool.take();
  pool.release(first, StepId{9});
  pool.release(second, StepId{4});
  pool.check();
  pool.complete(StepId{4});
  CHECK(pool.counts().in_flight == 2);
  pool.complete(StepId{9});
  CHECK(pool.available() == 2);
  pool.check();
}

// rule: kv.references-are-tables
TEST_CASE("double frees and ids outside the pool are Corrupt") {
  BlockPool pool(2);
  const BlockId block = pool.take();
  pool.release(block, StepId{0});
  CHECK_THROWS_AS(pool.release(block, StepId{0}), Corrupt);
  CHECK_THROWS_AS(pool.release(BlockId{2}, StepId{0}), Corrupt);
  CHECK_THROWS_AS(pool.hold(kNoBlock), Corrupt);
  pool.check();
}
