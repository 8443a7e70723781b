#include "backend/sum_tree.hpp"

#include <algorithm>
#include <utility>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

/// Lists the additions of one node after those of what lies left of it.
class Walker {
 public:
  Walker(std::span<const TreeNode> nodes, std::int64_t num_leaves) : nodes_(nodes), num_leaves_(num_leaves) {}

  /// Which of the values becomes that of `node`.
  std::size_t walk(TreeNode node) {
    if (next_ == nodes_.size()) throw InvalidArgument("combine: the nodes end before the leaves do");
    if (nodes_[next_] == node) return next_++;
    if (node.level == 0)
      throw InvalidArgument(str("combine: node ", next_, " is (", nodes_[next_].level, ", ", nodes_[next_].index,
                                "), where leaf ", node.index, " comes next"));
    const TreeNode left{node.level - 1, 2 * node.index}, right{node.level - 1, 2 * node.index + 1};
    const std::size_t to = walk(left);
    if (right.index << right.level < num_leaves_) additions.push_back({to, walk(right)});
    return to;
  }

  bool took_all() const noexcept { return next_ == nodes_.size(); }
  std::vector<TreeAddition> additions;

 private:
  std::span<const TreeNode> nodes_;
  std::int64_t num_leaves_;
  std::size_t next_ = 0;
};

}  // namespace

TreeNode root_of(std::int64_t num_leaves) {
  TreeNode root;
  while (std::int64_t{1} << root.level < num_leaves) ++root.level;
  return root;
}

std::vector<TreeNode> subtrees_of(std::int64_t first, std::int64_t end, std::int64_t num_leaves) {
  if (first < 0 || first > end || end > num_leaves)
    throw InvalidArgument(str("leaves [", first, ", ", end, ") of a tree that has ", num_leaves));
  const auto end_of = [&](TreeNode node) { return std::min((node.index + 1) << node.level, num_leaves); };
  std::vector<TreeNode> nodes;
  while (first < end) {
    TreeNode node{0, first};
    const int top = root_of(num_leaves).level;
    for (TreeNode up{1, first / 2}; up.level <= top && up.index << up.level == first && end_of(up) <= end;
         up = {up.level + 1, up.index / 2})
      node = up;
    nodes.push_back(node);
    first = end_of(node);
  }
  return nodes;
}

void combine(std::span<const TreeNode> nodes, std::span<const std::span<const float>> values, std::int64_t num_leaves,
             std::span<float> out) {
  if (nodes.size() != values.size())
    throw InvalidArgument(str("combine: ", nodes.size(), " nodes with the sums of ", values.size()));
  for (const auto& sums : values)
    if (sums.size() != out.size())
      throw InvalidArgument(str("combine: a node of ", sums.size(), " sums where ", out.size(), " are wanted"));
  std::vector<std::vector<float>> sums;
  for (const auto& of_node : values) sums.emplace_back(of_node.begin(), of_node.end());
  for (const TreeAddition& step : additions_of(nodes, num_leaves))
    for (std::size_t i = 0; i < out.size(); ++i) sums[step.to][i] += sums[step.from][i];
  std::ranges::copy(sums[0], out.begin());
}

std::vector<TreeAddition> additions_of(std::span<const TreeNode> nodes, std::int64_t num_leaves) {
  Walker walker(nodes, num_leaves);
  walker.walk(root_of(num_leaves));
  if (!walker.took_all()) throw InvalidArgument("combine: there are nodes beyond the last leaf");
  return std::move(walker.additions);
}

}  // namespace pagedcore
