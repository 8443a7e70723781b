#include "backend/sum_tree.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

class Combiner {
 public:
  Combiner(std::span<const TreeNode> nodes, std::span<const std::span<const float>> values, std::int64_t num_leaves)
      : nodes_(nodes), values_(values), num_leaves_(num_leaves) {}

  void sum(TreeNode node, std::span<float> out) {
    if (next_ == nodes_.size()) throw InvalidArgument("combine: the nodes end before the leaves do");
    if (nodes_[next_] == node) {
      std::ranges::copy(values_[next_++], out.begin());
      return;
    }
    if (node.level == 0)
      throw InvalidArgument(str("combine: node ", next_, " is (", nodes_[next_].level, ", ", nodes_[next_].index,
                                "), where leaf ", node.index, " comes next"));
    const TreeNode left{node.level - 1, 2 * node.index}, right{node.level - 1, 2 * node.index + 1};
    sum(left, out);
    if (right.index << right.level >= num_leaves_) return;
    std::vector<float> more(out.size());
    sum(right, more);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += more[i];
  }

  bool took_all() const noexcept { return next_ == nodes_.size(); }

 private:
  std::span<const TreeNode> nodes_;
  std::span<const std::span<const float>> values_;
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
  Combiner combiner(nodes, values, num_leaves);
  combiner.sum(root_of(num_leaves), out);
  if (!combiner.took_all()) throw InvalidArgument("combine: there are nodes beyond the last leaf");
}

}  // namespace pagedcore
