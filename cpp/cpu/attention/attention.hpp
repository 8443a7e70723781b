// Paged attention on the CPU: the KV storage and its tiles, the batch's work list, and the operations over both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "cpu/isa.hpp"
#include "cpu/thread_pool.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu {

/// Bytes of one block, all layers, for the tiles that `isa` uses. Throws Unsupported for a head size or type it cannot
/// serve.
std::size_t kv_block_bytes(const KvShape& shape, Isa isa);
std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape, std::uint32_t num_blocks, Isa isa);
void copy_blocks(ThreadPool& pool, KvStorage& kv, std::span<const BlockCopy> copies);
/// As Backend::swap_out() and swap_in(). Throw InvalidArgument before anything is moved.
void swap_out(ThreadPool& pool, const KvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst);
void swap_in(ThreadPool& pool, KvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src);

/// Host copy of a step's description with each row's position. Throws InvalidArgument for ranges that do not tile the
/// rows.
std::unique_ptr<Batch> make_batch(const BatchView& view, std::int32_t block_size);
std::span<const TokenId> batch_tokens(const Batch& batch) noexcept;

/// See Backend::rope_and_cache and Backend::attention.
void rope_and_cache(ThreadPool& pool, const Tensor& q, const Tensor& qkv, KvStorage& kv, std::int32_t layer,
                    const Batch& batch, const AttentionShape& shape, const RopeParams& rope);
void attention(ThreadPool& pool, const Tensor& out, const Tensor& q, const KvStorage& kv, std::int32_t layer,
               const Batch& batch, const AttentionParams& params);

}  // namespace pagedcore::cpu
