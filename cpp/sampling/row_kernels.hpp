// Passes over a row of logits (50 k to 250 k floats), one vectorised loop each. Every reduction keeps sixteen lanes
// that are combined in one fixed order, and no operation is fused: all instruction sets give the same bits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "pagedcore/types.hpp"

namespace pagedcore::sampling {

/// The largest value; NaN when any value is NaN, -inf for an empty row.
float row_max(std::span<const float> row) noexcept;

/// Index of the first value equal to `value`; row.size() when there is none.
std::size_t find_first(std::span<const float> row, float value) noexcept;

/// Number of values greater than `value`.
std::size_t count_greater(std::span<const float> row, float value) noexcept;
/// Number of values equal to `value`.
std::size_t count_equal(std::span<const float> row, float value) noexcept;

/// out[i] = exp((row[i] - max) * scale) to 1e-7 relative; `max` is at least every value, `scale` >= 0 and finite.
/// Results below the smallest normal float are 0.
void exp_row(std::span<const float> row, float max, float scale, std::span<float> out) noexcept;

/// sums[b] = sum of exp((row[i] - max) * scale) over i in block b of kSumBlock values. `sums` has sum_blocks() entries.
inline constexpr std::size_t kSumBlock = 1024;
constexpr std::size_t sum_blocks(std::size_t size) noexcept { return (size + kSumBlock - 1) / kSumBlock; }
void exp_block_sums(std::span<const float> row, float max, float scale, std::span<double> sums) noexcept;

/// The same, summed over the whole row.
double exp_sum(std::span<const float> row, float max, float scale) noexcept;

/// Maxima of disjoint groups of at most kGroup values that cover the row. `out` has group_count() entries.
inline constexpr std::size_t kGroup = 32;
std::size_t group_count(std::size_t size) noexcept;
void group_max(std::span<const float> row, std::span<float> out) noexcept;

/// Appends the indices of all values >= floor, ascending.
void collect_at_least(std::span<const float> row, float floor, std::vector<TokenId>& out);

/// out[i] = row[i] where bit i % 32 of mask[i / 32] is 1, else -inf. `mask` has a bit for each value; `out` is as long
/// as `row`, and may be it.
void keep_allowed(std::span<const float> row, std::span<const std::uint32_t> mask, std::span<float> out) noexcept;

/// Testing aid: use at most instruction set `level` (0 the baseline, 1 AVX2, 2 AVX-512) from now on, in the whole
/// process; returns the level in use, lower where the CPU or the architecture lacks it.
int limit_row_isa(int level) noexcept;

}  // namespace pagedcore::sampling
