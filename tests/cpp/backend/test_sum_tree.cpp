// The tree over the leaves of k: what ranks that own ranges of leaves send adds up to the bits of one process.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "backend/checks.hpp"
#include "backend/sum_tree.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;

namespace {

/// Node (level, index) as WeightForm defines it.
float node_value(const std::vector<float>& leaves, int level, std::int64_t index) {
  if (level == 0) return leaves[static_cast<std::size_t>(index)];
  const float left = node_value(leaves, level - 1, 2 * index);
  if ((2 * index + 1) << (level - 1) >= static_cast<std::int64_t>(leaves.size())) return left;
  return left + node_value(leaves, level - 1, 2 * index + 1);
}

float root_value(const std::vector<float>& leaves) {
  const TreeNode root = root_of(static_cast<std::int64_t>(leaves.size()));
  return node_value(leaves, root.level, root.index);
}

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

}  // namespace

TEST_CASE("one to eight ranks, however uneven, finish the tree to the bits of one process") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  int in_rank_order = 0, cases = 0;
  for (std::int64_t num_leaves = 1; num_leaves <= 70; ++num_leaves)
    for (std::int64_t ranks = 1; ranks <= std::min<std::int64_t>(8, num_leaves); ++ranks)
      for (int repeat = 0; repeat < 4; ++repeat, ++cases) {
        std::vector<float> leaves(static_cast<std::size_t>(num_leaves));
        for (float& x : leaves) x = normal(random);
        std::vector<std::int64_t> borders{0, num_leaves};
        while (borders.size() < static_cast<std::size_t>(ranks) + 1) {
          const auto border = static_cast<std::int64_t>(random() % static_cast<unsigned>(num_leaves));
          if (std::ranges::find(borders, border) == borders.end()) borders.push_back(border);
        }
        std::ranges::sort(borders);
        std::vector<TreeNode> nodes;
        float plain = 0.0f;
        for (std::size_t rank = 0; rank + 1 < borders.size(); ++rank) {
          const auto own = subtrees_of(borders[rank], borders[rank + 1], num_leaves);
          nodes.insert(nodes.end(), own.begin(), own.end());
          float sum = 0.0f;
          for (std::int64_t i = borders[rank]; i < borders[rank + 1]; ++i) sum += leaves[static_cast<std::size_t>(i)];
          plain += sum;
        }
        std::vector<float> sent;
        for (const TreeNode& node : nodes) sent.push_back(node_value(leaves, node.level, node.index));
        std::vector<std::span<const float>> values;
        for (const float& value : sent) values.push_back({&value, 1});
        float root = -1.0f;
        combine(nodes, values, num_leaves, {&root, 1});
        REQUIRE(same_bits(root, root_value(leaves)));
        in_rank_order += same_bits(plain, root_value(leaves));
      }
  CHECK(in_rank_order < cases);  // the order shows in these numbers: a test of equality means something
}

TEST_CASE("the fewest subtrees of a range") {
  using Nodes = std::vector<TreeNode>;
  CHECK(subtrees_of(0, 16, 16) == Nodes{{4, 0}});
  CHECK(subtrees_of(0, 8, 16) == Nodes{{3, 0}});
  CHECK(subtrees_of(3, 9, 16) == Nodes{{0, 3}, {2, 1}, {0, 8}});
  CHECK(subtrees_of(6, 9, 9) == Nodes{{1, 3}, {3, 1}});  // leaf 8 is all that there is of [8, 16)
  CHECK(subtrees_of(0, 9, 9) == Nodes{{4, 0}});
  CHECK(subtrees_of(5, 5, 9).empty());
  CHECK(subtrees_of(0, 1, 1) == Nodes{{0, 0}});
  CHECK_THROWS_AS(subtrees_of(2, 1, 9), InvalidArgument);
  CHECK_THROWS_AS(subtrees_of(0, 10, 9), InvalidArgument);
}

TEST_CASE("nodes that do not cover the leaves once, in order, are refused") {
  const float one = 1.0f;
  float out = 0.0f;
  const auto refused = [&](std::vector<TreeNode> nodes, std::int64_t num_leaves) {
    const std::vector<std::span<const float>> values(nodes.size(), {&one, 1});
    CHECK_THROWS_AS(combine(nodes, values, num_leaves, {&out, 1}), InvalidArgument);
  };
  refused({}, 4);
  refused({{1, 0}}, 4);
  refused({{1, 1}, {1, 0}}, 4);
  refused({{1, 0}, {1, 1}, {0, 0}}, 4);
  const std::vector<TreeNode> root{{2, 0}};
  CHECK_THROWS_AS(combine(root, {}, 4, {&out, 1}), InvalidArgument);
}

TEST_CASE("leaves that do not cover k are refused, with what is wrong") {
  const auto message = [](std::vector<std::int64_t> ends, std::int64_t k) {
    try {
      check_leaves(ends, k);
    } catch (const InvalidArgument& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(message({}, 7).empty());
  CHECK(message({7}, 7).empty());
  CHECK(message({3, 7}, 7).empty());
  CHECK(message({3, 6}, 7).find("ends at 6; it must end at k, which is 7") != std::string::npos);
  CHECK(message({3, 8}, 7).find("which is 7") != std::string::npos);
  CHECK(message({3, 3, 7}, 7).find("ends at 3, the one before at 3") != std::string::npos);
  CHECK(message({0, 7}, 7).find("ends at 0") != std::string::npos);
  CHECK(message({-1, 7}, 7).find("ends at -1") != std::string::npos);
  std::vector<std::int64_t> many;
  for (std::int64_t i = 1; i <= static_cast<std::int64_t>(kMostLeaves) + 1; ++i) many.push_back(i);
  CHECK(message(many, many.back()).find("at most 4096") != std::string::npos);
  many.pop_back();
  CHECK(message(many, many.back()).empty());
}
