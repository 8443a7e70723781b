// The worked examples of "Efficient Memory Management for Large Language Model Serving with PagedAttention" (SOSP'23),
// with the paper's own physical block numbers.
#include <doctest/doctest.h>

#include <algorithm>
#include <ranges>
#include <vector>

#include "pagedcore/kv_cache.hpp"

using namespace pagedcore;

namespace {

constexpr SequenceId A{1}, B{2};

/// One row of the paper's tables: physical block number and tokens filled.
struct Entry {
  std::uint32_t block;
  std::uint32_t filled;
  friend bool operator==(const Entry&, const Entry&) = default;
};

std::vector<Entry> block_table(const KvCacheManager& kv, SequenceId seq) {
  std::vector<Entry> entries;
  std::uint32_t left = kv.length(seq);
  for (const BlockId block : kv.block_table(seq)) {
    const std::uint32_t filled = std::min(left, kv.config().block_size);
    entries.push_back({raw(block), filled});
    left -= filled;
  }
  return entries;
}

/// A pool of eight blocks of four tokens that hands out `order` first: the latest freed block is reused first.
KvCacheManager pool_with_order(const std::vector<std::uint32_t>& order) {
  KvCacheManager kv({.num_blocks = 8, .block_size = 4});
  std::vector<BlockCopy> none;
  for (std::uint64_t block = 0; block < 8; ++block) {
    kv.create(SequenceId{100 + block}, 0, {});
    kv.append(SequenceId{100 + block}, 1, none);
  }
  const auto free = [&](std::uint64_t block) {
    if (kv.contains(SequenceId{100 + block})) kv.free(SequenceId{100 + block}, StepId{0});
  };
  for (std::uint32_t block = 0; block < 8; ++block) {
    if (std::ranges::find(order, block) == order.end()) free(block);
  }
  for (const std::uint32_t block : std::views::reverse(order)) free(block);
  return kv;
}

}  // namespace

// rule: kv.waste-under-one-block
TEST_CASE("figure 6: block table translation") {
  KvCacheManager kv = pool_with_order({7, 1, 3});
  std::vector<BlockCopy> copies;
  kv.create(A, 0, {});
  kv.append(A, 7, copies);  // "Four score and seven years ago our"
  CHECK(block_table(kv, A) == std::vector<Entry>{{7, 4}, {1, 3}});
  kv.append(A, 8, copies);  // "fathers": the last slot of block 1, nothing is allocated
  CHECK(block_table(kv, A) == std::vector<Entry>{{7, 4}, {1, 4}});
  CHECK(kv.counts().used == 2);
  kv.append(A, 9, copies);  // "brought": a new block
  CHECK(block_table(kv, A) == std::vector<Entry>{{7, 4}, {1, 4}, {3, 1}});
  CHECK(copies.empty());
}

TEST_CASE("figure 7: two requests interleave in one pool") {
  KvCacheManager kv = pool_with_order({7, 1, 5, 2, 3});
  std::vector<BlockCopy> copies;
  kv.create(A, 0, {});
  kv.append(A, 7, copies);
  kv.create(B, 0, {});
  kv.append(B, 5, copies);  // "It was the best of", then "times"
  kv.append(A, 8, copies);
  kv.append(B, 6, copies);
  kv.append(A, 9, copies);
  CHECK(block_table(kv, A) == std::vector<Entry>{{7, 4}, {1, 4}, {3, 1}});
  CHECK(block_table(kv, B) == std::vector<Entry>{{5, 4}, {2, 2}});
  kv.check();
}

// rule: kv.shared-is-copied-before-written
TEST_CASE("figure 8: parallel sampling with copy-on-write") {
  KvCacheManager kv = pool_with_order({7, 1, 3});
  std::vector<BlockCopy> copies;
  kv.create(A, 0, {});
  kv.append(A, 7, copies);
  kv.fork(A, B, 7);  // samples A1 and A2 share the prompt's blocks
  CHECK(kv.references(BlockId{7}) == 2);
  CHECK(kv.references(BlockId{1}) == 2);
  kv.append(A, 8, copies);  // A1 "fathers" copies block 1 to block 3
  CHECK(copies == std::vector<BlockCopy>{{BlockId{1}, BlockId{3}, 3}});
  CHECK(kv.references(BlockId{1}) == 1);
  kv.append(B, 8, copies);  // A2 "mothers" writes to block 1 in place
  CHECK(copies.size() == 1);
  CHECK(block_table(kv, A) == std::vector<Entry>{{7, 4}, {3, 4}});
  CHECK(block_table(kv, B) == std::vector<Entry>{{7, 4}, {1, 4}});
  kv.check();
}
