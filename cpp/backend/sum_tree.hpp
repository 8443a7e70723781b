// The tree over the leaves of k (WeightForm in pagedcore/backend.hpp), for those who sum ranges of leaves apart.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "pagedcore/backend.hpp"

namespace pagedcore {

/// The node over all of them.
TreeNode root_of(std::int64_t num_leaves);

/// The fewest nodes that cover leaves [first, end) of a tree and no others, in order: what the owner of that range
/// sends to whoever finishes the tree. Throws InvalidArgument unless 0 <= first <= end <= num_leaves.
std::vector<TreeNode> subtrees_of(std::int64_t first, std::int64_t end, std::int64_t num_leaves);

/// out[i] = the root, from values[n][i] of nodes[n]: nodes that cover all leaves of a tree, each once, in order. The
/// sums of each node are as many as `out` has. Throws InvalidArgument for nodes that do not cover them so.
void combine(std::span<const TreeNode> nodes, std::span<const std::span<const float>> values, std::int64_t num_leaves,
             std::span<float> out);

/// Adds values[from] to values[to].
struct TreeAddition {
  std::size_t to = 0, from = 0;
};
/// What makes values[0] the root, of the values of nodes that cover all leaves, in order. Throws as combine() does.
std::vector<TreeAddition> additions_of(std::span<const TreeNode> nodes, std::int64_t num_leaves);

}  // namespace pagedcore
