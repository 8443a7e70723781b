// The attention work of a step: which blocks of threads compute which query rows over which context. Made once a step
// for layers that have the same shape and block tables. Host code; nothing in it can change the bits of a result.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cuda {

struct AttentionPlanShape {
  std::int32_t num_heads = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t block_size = 0;
  std::int32_t window = 0;
  std::int32_t parallelism = 0;  // blocks of threads that fill the device: contexts are split to reach it
  std::int64_t max_states = 0;   // of split contexts, a state for each row and segment: what the workspace holds
};

/// The arrays of AttentionArgs of the same names.
struct AttentionPlan {
  std::vector<std::int32_t> rows;  // the batch's rows in order, then those of tiles that share a prefix
  std::vector<std::int32_t> row_states;
  std::vector<std::int32_t> split_rows;
  std::vector<AttentionItem> narrow, wide;
  std::int64_t num_states = 0;  // at most max_states
};

/// `tables` are those of one layer group, as in BatchView. Sequences that decode over the same physical blocks
/// share the items of whole segments of them, so that such a segment is read once for up to a tile of their query rows.
AttentionPlan plan_attention(std::span<const TokenRange> ranges, std::span<const std::uint32_t> tables,
                             const AttentionPlanShape& shape);

}  // namespace pagedcore::cuda
