// What adapters add to products: y += up (down x), with a rank far below the sizes of x and y. The first product runs
// by itself, over the rows of each adapter; the second one as the matmul's epilogue, while its sums are in registers.
#pragma once

#include <memory>
#include <vector>

#include "cpu/isa.hpp"
#include "cpu/large_memory.hpp"
#include "cpu/matmul/kernel.hpp"
#include "cpu/thread_pool.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu {

/// Of all parts. `down` is packed as any weight of [ranks, k] is, `up` by vectors of columns, `scale` multiplied in.
/// Throws InvalidArgument for parts that do not fit the form.
std::unique_ptr<LowRankWeight> pack_low_rank(ThreadPool& pool, const LowRankForm& form, Isa isa, DType dtype);
/// What that will hold.
std::size_t low_rank_bytes(const LowRankForm& form, Isa isa, DType dtype);

/// See Backend::low_rank.
void low_rank(ThreadPool& pool, Scratch& scratch, const Tensor& sums, const Tensor& in, const LowRankRows& of);

/// Of each of `rows` rows of a product with an adapter's sums, for its epilogue.
std::vector<LowRankRow> low_rank_rows(const LowRankSums& sums, std::int64_t rows, std::int64_t columns);

}  // namespace pagedcore::cpu
