// Paged attention on the CPU: what a step prepares, and the operations over it and the KV storage.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "cpu/thread_pool.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu {

/// Host copy of a step's description with each row's position. Throws InvalidArgument for ranges that do not tile the
/// rows.
std::unique_ptr<Batch> make_batch(const BatchView& view, std::int32_t block_size);
std::span<const TokenId> batch_tokens(const Batch& batch) noexcept;
std::span<const std::int32_t> batch_positions(const Batch& batch) noexcept;  // of the rows

/// See Backend::rope_and_cache and Backend::attention.
void rope_and_cache(ThreadPool& pool, const Tensor& q, const Tensor& qkv, KvStorage& kv, std::int32_t layer,
                    const Batch& batch, const AttentionShape& shape, const RopeParams& rope);
void attention(ThreadPool& pool, const Tensor& out, const Tensor& q, const KvStorage& kv, std::int32_t layer,
               const Batch& batch, const AttentionParams& params);

}  // namespace pagedcore::cpu
