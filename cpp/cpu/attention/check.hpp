// Checks that rope_and_cache and attention share.
#pragma once

#include "cpu/attention/batch.hpp"
#include "cpu/kv/storage.hpp"

namespace pagedcore::cpu::attention_detail {

/// Throws InvalidArgument unless layer, head counts and sizes of the call fit the storage, and the batch its blocks.
void check_call(const PagedStorage& kv, const PreparedBatch& batch, std::int32_t layer, const AttentionShape& shape);
/// Throws InvalidArgument unless `t` is a [rows, cols] matrix of f32 or bf16.
void check_matrix(const char* name, const Tensor& t, std::int64_t rows, std::int64_t cols);

}  // namespace pagedcore::cpu::attention_detail
