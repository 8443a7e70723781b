#include <doctest/doctest.h>

#include <array>

#include "kv/prefix_index.hpp"

using namespace pagedcore;
using kv::PrefixIndex;
using kv::PrefixLink;

namespace {
std::uint64_t constant(std::uint64_t, const TokenId*, std::size_t) noexcept { return 42; }
}  // namespace

// rule: kv.hit-is-verified
TEST_CASE("a block is found by tokens, parent and salt, whatever the hash") {
  for (const PrefixHash hash : {PrefixHash{nullptr}, PrefixHash{constant}}) {
    PrefixIndex index(8, 2, 1, hash, 0);
    const std::array<TokenId, 2> ab{1, 2}, cd{3, 4};
    const PrefixLink root = PrefixLink::root(0);
    index.insert(BlockId{5}, root, ab);
    index.insert(BlockId{6}, index.link(BlockId{5}), ab);
    index.insert(BlockId{7}, root, cd);
    index.check();
    CHECK(index.find(root, ab) == BlockId{5});
    CHECK(index.find(index.link(BlockId{5}), ab) == BlockId{6});  // equal content at another prefix
    CHECK(index.find(index.link(BlockId{5}), cd) == kNoBlock);
    CHECK(index.find(root, cd) == BlockId{7});
    CHECK(index.find(PrefixLink::root(1), ab) == kNoBlock);
  }
}

TEST_CASE("children of an evicted block stay unreachable when the block is published again") {
  PrefixIndex index(4, 1, 1, constant, 0);
  const std::array<TokenId, 1> a{1}, b{2};
  const PrefixLink root = PrefixLink::root(0);
  index.insert(BlockId{0}, root, a);
  const PrefixLink old = index.link(BlockId{0});
  index.insert(BlockId{1}, old, b);
  index.erase(BlockId{0});
  CHECK_FALSE(index.is_alive(old));
  CHECK(index.find(root, a) == kNoBlock);
  index.insert(BlockId{0}, root, b);  // the same physical block, other content
  CHECK(index.find(index.link(BlockId{0}), b) == kNoBlock);
  CHECK(index.contains(BlockId{1}));  // it ages out of the reuse list
  index.check();
  index.clear();
  CHECK_FALSE(index.contains(BlockId{1}));
  CHECK(index.find(root, b) == kNoBlock);
  index.check();
}
