// Where the products whose k tensor parallelism cuts are summed apart: leaves of k, by the model's description alone.
#pragma once

#include <cstdint>
#include <vector>

namespace pagedcore {

/// Ends of `pieces` leaves of k: as nearly equal as their borders can be that lie at multiples of 32. With u = ceil(k /
/// 32) units, min(pieces, u) leaves; leaf i ends at 32 floor((i + 1) u / leaves), the last at k.
std::vector<std::int64_t> even_leaves(std::int64_t k, std::int64_t pieces);

/// Of the attention output: one leaf a query head; of a larger head than 128, even_leaves(head_dim, ceil(head_dim /
/// 128)).
std::vector<std::int64_t> head_leaves(std::int64_t num_heads, std::int64_t head_dim);
std::int64_t num_head_leaves(std::int64_t num_heads, std::int64_t head_dim) noexcept;

/// Of the MLP's down projection: 16, or as many as 32 columns each allow.
std::vector<std::int64_t> down_leaves(std::int64_t intermediate_size);

}  // namespace pagedcore
