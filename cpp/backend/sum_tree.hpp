// The tree over the leaves of k (WeightForm in pagedcore/backend.hpp), for those who sum ranges of leaves apart.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pagedcore {

/// Covers leaves [index 2^level, (index + 1) 2^level), as far as there are any.
struct TreeNode {
  int level = 0;
  std::int64_t index = 0;
  bool operator==(const TreeNode&) const = default;
};

/// The node over all of them.
TreeNode root_of(std::int64_t num_leaves);

/// The fewest nodes that cover leaves [first, end) of a tree and no others, in order: what the owner of that range
/// sends to whoever finishes the tree. Throws InvalidArgument unless 0 <= first <= end <= num_leaves.
std::vector<TreeNode> subtrees_of(std::int64_t first, std::int64_t end, std::int64_t num_leaves);

/// out[i] = the root, from values[n][i] of nodes[n]: nodes that cover all leaves of a tree, each once, in order. The
/// sums of each node are as many as `out` has. Throws InvalidArgument for nodes that do not cover them so.
void combine(std::span<const TreeNode> nodes, std::span<const std::span<const float>> values, std::int64_t num_leaves,
             std::span<float> out);

}  // namespace pagedcore
