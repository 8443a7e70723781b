// What each of several ranks has of a model: arithmetic over its description.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "pagedcore/model.hpp"

namespace pagedcore {

/// [first, end)
struct Interval {
  std::int64_t first = 0;
  std::int64_t end = 0;
  std::int64_t size() const noexcept { return end - first; }
  bool operator==(const Interval&) const = default;
};

/// Rank `rank`'s of `count` things, in order: as equal as they can be, where they are not, more at later ranks. Rank 0
/// has other work.
inline Interval share(std::int64_t count, const ModelRank& rank) noexcept {
  return {count * rank.rank / rank.size, count * (rank.rank + 1) / rank.size};
}

/// The leaves of one subtree, as a weight of its own.
struct CutPart {
  TreeNode node;
  Interval columns;                     // of k
  std::vector<std::int64_t> leaf_ends;  // from the first of its columns on
};

/// A rank's part of the sums over k of a product that ranks share.
struct Cut {
  Interval columns;  // of k
  std::vector<CutPart> parts;
};
Cut cut_of(std::span<const std::int64_t> leaf_ends, Interval leaves);

/// The parts of all ranks, by rank.
struct Cuts {
  std::int64_t num_leaves = 0;
  std::vector<Cut> ranks;
  std::vector<TreeNode> nodes;  // of all, in order
};

struct Shard {
  ModelRank rank;
  Interval heads, kv_heads;         // query heads, and the KV heads that they read
  Interval owned_kv_heads;          // of those: that no rank before has
  std::int32_t first_in_group = 0;  // the place of its first query head among those of the KV head
  Interval vocab;                   // rows of the embedding and the head

  bool whole() const noexcept { return rank.size == 1; }
};
/// Of a model that validate_ranks() accepts.
Shard shard_of(const ModelDescription& description, const ModelRank& rank);

Cuts attention_cuts(const ModelDescription& description, std::int32_t ranks);
Cuts inner_cuts(std::int64_t inner, std::int32_t ranks);  // of an MLP, or an expert, with so many columns inside

/// As a description: heads, columns inside MLPs and slopes are those of the rank. Not a valid one: query heads need not
/// be a multiple of KV heads.
ModelDescription part_of(const ModelDescription& description, const Shard& shard);

}  // namespace pagedcore
