#include "model/shard.hpp"

#include <algorithm>

#include "backend/sum_tree.hpp"
#include "base/text.hpp"
#include "model/leaves.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

constexpr std::int64_t kVocabularyUnit = 1024;  // rows, between the slices of a large vocabulary

Cuts cuts_of(std::span<const std::int64_t> leaf_ends, std::int32_t ranks, std::int64_t shared,
             std::int64_t leaves_of_each) {
  Cuts cuts{static_cast<std::int64_t>(leaf_ends.size()), {}, {}};
  for (std::int32_t rank = 0; rank < ranks; ++rank) {
    const Interval own = share(shared, {rank, ranks});
    cuts.ranks.push_back(cut_of(leaf_ends, {own.first * leaves_of_each, own.end * leaves_of_each}));
    for (const CutPart& part : cuts.ranks.back().parts) cuts.nodes.push_back(part.node);
  }
  return cuts;
}

Interval kv_heads_of(const ModelDescription& d, const Interval& heads) {
  const std::int64_t group = d.attention.num_heads / d.attention.num_kv_heads;
  return {heads.first / group, (heads.end + group - 1) / group};
}

}  // namespace

Cut cut_of(std::span<const std::int64_t> leaf_ends, Interval leaves) {
  const auto begin_of = [&](std::int64_t leaf) {
    return leaf == 0 ? 0 : leaf_ends[static_cast<std::size_t>(leaf - 1)];
  };
  const auto num_leaves = static_cast<std::int64_t>(leaf_ends.size());
  Cut cut{{begin_of(leaves.first), begin_of(leaves.end)}, {}};
  for (const TreeNode& node : subtrees_of(leaves.first, leaves.end, num_leaves)) {
    const std::int64_t first = node.index << node.level, end = std::min((node.index + 1) << node.level, num_leaves);
    CutPart part{node, {begin_of(first), begin_of(end)}, {}};
    for (std::int64_t leaf = first; leaf < end; ++leaf)
      part.leaf_ends.push_back(leaf_ends[static_cast<std::size_t>(leaf)] - part.columns.first);
    cut.parts.push_back(std::move(part));
  }
  return cut;
}

Cuts attention_cuts(const ModelDescription& d, std::int32_t ranks) {
  const AttentionDescription& a = d.attention;
  return cuts_of(head_leaves(a.num_heads, a.head_dim), ranks, a.num_heads, num_head_leaves(1, a.head_dim));
}

Cuts inner_cuts(std::int64_t inner, std::int32_t ranks) {
  const std::vector<std::int64_t> leaves = down_leaves(inner);
  return cuts_of(leaves, ranks, static_cast<std::int64_t>(leaves.size()), 1);
}

Shard shard_of(const ModelDescription& d, const ModelRank& rank) {
  const AttentionDescription& a = d.attention;
  Shard shard{rank, share(a.num_heads, rank), {}, {}, 0, {0, d.vocab_size}};
  shard.kv_heads = shard.owned_kv_heads = kv_heads_of(d, shard.heads);
  shard.first_in_group = static_cast<std::int32_t>(shard.heads.first % (a.num_heads / a.num_kv_heads));
  if (rank.rank > 0)
    shard.owned_kv_heads.first =
        std::max(shard.kv_heads.first, kv_heads_of(d, share(a.num_heads, {rank.rank - 1, rank.size})).end);
  const std::int64_t unit = d.vocab_size >= kVocabularyUnit * rank.size ? kVocabularyUnit : 1;
  const Interval units = share((d.vocab_size + unit - 1) / unit, rank);
  shard.vocab = {units.first * unit, std::min<std::int64_t>(units.end * unit, d.vocab_size)};
  return shard;
}

ModelDescription part_of(const ModelDescription& d, const Shard& shard) {
  ModelDescription part = d;
  if (shard.whole()) return part;
  const auto columns = [&](std::int32_t inner) {
    if (inner == 0) return 0;
    const Cuts cuts = inner_cuts(inner, shard.rank.size);
    return static_cast<std::int32_t>(cuts.ranks[static_cast<std::size_t>(shard.rank.rank)].columns.size());
  };
  part.attention.num_heads = static_cast<std::int32_t>(shard.heads.size());
  part.attention.num_kv_heads = static_cast<std::int32_t>(shard.kv_heads.size());
  part.mlp.intermediate_size = columns(d.mlp.intermediate_size);
  part.mixture.expert_size = columns(d.mixture.expert_size);
  part.mixture.shared_size = columns(d.mixture.shared_size);
  std::vector<float>& slopes = part.position.alibi_slopes;
  if (!slopes.empty())
    slopes = {d.position.alibi_slopes.begin() + shard.heads.first, d.position.alibi_slopes.begin() + shard.heads.end};
  return part;
}

void validate_ranks(const ModelDescription& d, std::int32_t size) {
  if (size < 1) throw InvalidArgument(str("tensor_parallel = ", size, " is below 1"));
  if (size == 1) return;
  if (size > d.attention.num_heads)
    throw InvalidArgument(str("tensor_parallel = ", size, " exceeds the ", d.attention.num_heads,
                              " query heads of the model, of which each rank has one at least; use at most ",
                              d.attention.num_heads));
  if (d.mixture.num_experts > 0 && d.mixture.biases)
    throw Unsupported(str("tensor_parallel = ", size,
                          " for a mixture whose experts have biases (mixture_biases), which "
                          "come after the whole of their sums; use tensor_parallel = 1"));
  if (size > d.vocab_size)
    throw InvalidArgument(str("tensor_parallel = ", size, " exceeds the ", d.vocab_size, " tokens of the vocabulary"));
}

}  // namespace pagedcore
