// The lists of siblings in the prefix index: which one is found, how far is looked, and what becomes of those whose
// parent is gone.
#include <doctest/doctest.h>

#include <array>
#include <numeric>
#include <vector>

#include "kv/prefix_index.hpp"

using namespace pagedcore;
using kv::PrefixIndex;
using kv::PrefixLink;

namespace {
using Four = std::array<TokenId, 4>;
using Two = std::array<TokenId, 2>;
}  // namespace

TEST_CASE("of several siblings the one with most tokens in common is found, wherever it stands") {
  const Four begins_alike{1, 2, 9, 9}, alike{1, 2, 3, 4};
  for (const bool latest : {false, true}) {
    PrefixIndex index(4, 4, 1, nullptr, 0);
    const PrefixLink root = PrefixLink::root(0);
    index.insert(BlockId{0}, root, latest ? begins_alike : alike);
    index.insert(BlockId{1}, root, latest ? alike : begins_alike);
    const auto found = index.find_partial(root, Four{1, 2, 3, 7});
    CHECK(found.block == BlockId{latest ? 1u : 0u});
    CHECK(found.num_tokens == 3);
    CHECK(index.find_partial(root, Four{7, 2, 3, 4}).num_tokens == 0);
  }
}

TEST_CASE("of very many siblings the latest 64 are looked at: a search takes no longer however many there are") {
  constexpr std::uint32_t kBlocks = 100, kVisited = 64;
  PrefixIndex index(kBlocks, 2, 1, nullptr, 0);
  const PrefixLink root = PrefixLink::root(0);
  for (std::uint32_t i = 0; i < kBlocks; ++i) index.insert(BlockId{i}, root, Two{static_cast<TokenId>(i), 0});
  for (std::uint32_t i = 0; i < kBlocks; ++i) {
    const auto found = index.find_partial(root, Two{static_cast<TokenId>(i), 1});
    CHECK(found.num_tokens == (i >= kBlocks - kVisited ? 1 : 0));
    CHECK(index.find(root, Two{static_cast<TokenId>(i), 0}) == BlockId{i});  // whole blocks are found by their hash
  }
  index.check();
}

TEST_CASE("a child whose parent is gone leaves the children of the block's next life alone") {
  PrefixIndex index(4, 2, 1, nullptr, 0);
  const Two a{1, 1}, b{2, 2}, c{3, 3}, d{4, 4};
  const PrefixLink root = PrefixLink::root(0);
  index.insert(BlockId{0}, root, a);
  index.insert(BlockId{1}, index.link(BlockId{0}), b);
  index.erase(BlockId{0});
  index.insert(BlockId{0}, root, c);
  CHECK(index.find_partial(index.link(BlockId{0}), b).num_tokens == 0);
  index.insert(BlockId{2}, index.link(BlockId{0}), d);
  index.erase(BlockId{1});
  const auto found = index.find_partial(index.link(BlockId{0}), d);
  CHECK(found.block == BlockId{2});
  CHECK(found.num_tokens == 2);
  index.check();
}

TEST_CASE("siblings leave their list from anywhere in it") {
  for (std::uint32_t first = 0; first < 4; ++first) {
    for (std::uint32_t second = 0; second < 4; ++second) {
      if (first == second) continue;
      PrefixIndex index(4, 2, 1, nullptr, 0);
      const PrefixLink root = PrefixLink::root(0);
      for (std::uint32_t i = 0; i < 4; ++i) index.insert(BlockId{i}, root, Two{static_cast<TokenId>(i), 0});
      index.erase(BlockId{first});
      index.erase(BlockId{second});
      for (std::uint32_t i = 0; i < 4; ++i) {
        const bool is_there = i != first && i != second;
        CHECK(index.find_partial(root, Two{static_cast<TokenId>(i), 9}).num_tokens == (is_there ? 1 : 0));
      }
      index.check();
    }
  }
}

// rule: kv.windows-let-go
TEST_CASE("a block of another group of layers is attached to one entry, of one tenant") {
  KvCacheManager kv({.num_blocks = 9, .block_size = 4, .windows = {0, 4}});
  constexpr SequenceId A{1}, B{2}, C{3}, D{4};
  std::vector<TokenId> tokens(12);
  std::iota(tokens.begin(), tokens.end(), 0);
  std::vector<BlockCopy> copies;
  // Another tenant's entry, whose block of group 1 is behind the window, freed and taken by somebody else.
  kv.create(D, 2, {});
  kv.append(D, 8, copies);
  kv.publish(D, tokens, 4);
  kv.slide(D, 8, StepId{0});
  kv.create(A, 1, {});
  kv.append(A, 4, copies);
  kv.publish(A, tokens, 4);
  kv.create(C, 3, {});
  kv.append(C, 8, copies);  // the last three blocks that were free, and that one
  REQUIRE(kv.available() == 0);
  kv.fork(A, B, 4, 2);
  kv.publish(B, tokens, 4);  // finds that entry, but its own block belongs to the parent's
  kv.check();
  for (const SequenceId seq : {A, B, C, D}) kv.free(seq, StepId{0});
  kv.create(C, 3, {});
  kv.append(C, 16, copies);
  CHECK(kv.match_prefix(tokens, 1, 4).num_tokens == 0);
  CHECK(kv.match_prefix(tokens, 2, 4).num_tokens == 0);
  kv.check();
}
