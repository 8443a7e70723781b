// KV memory on the CPU: the storage, copies of blocks within it, and swaps of blocks to and from host memory.
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
/// `compute`: the type, f32 or bf16, that attention widens KV in int8 to; of other KV it says nothing.
std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape, std::uint32_t num_blocks, Isa isa,
                                           DType compute = DType::bf16);
void copy_blocks(ThreadPool& pool, KvStorage& kv, std::span<const BlockCopy> copies);
/// As Backend::swap_out() and swap_in(). Throw InvalidArgument before anything is moved.
void swap_out(ThreadPool& pool, const KvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst);
void swap_in(ThreadPool& pool, KvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src);

}  // namespace pagedcore::cpu
