// Mixtures of experts: see Backend::route and Backend::mixture.
#pragma once

#include "cpu/large_memory.hpp"
#include "cpu/mixture/row_lists.hpp"
#include "cpu/thread_pool.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu {

void route(ThreadPool& pool, const Routing& out, const Tensor& logits, const RouterParams& params);

/// `scratch` and `lists` are memory that is kept from call to call.
void mixture(ThreadPool& pool, Scratch& scratch, RowLists& lists, const Tensor& out, const Tensor& in,
             const Routing& routing, const Mixture& experts);

}  // namespace pagedcore::cpu
