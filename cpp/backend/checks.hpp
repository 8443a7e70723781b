// Checks of arguments that every backend makes. All throw InvalidArgument, naming what does not fit.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pagedcore/backend.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore {

std::string shape_text(const Tensor& t);
/// Unless `t` is a well-formed [rows, cols] matrix; its type is the caller's to check.
void check_shape(const char* what, const Tensor& t, std::int64_t rows, std::int64_t cols);
void check_f32(const char* what, const Tensor& t, std::int64_t rows, std::int64_t cols);

/// Rows of the packed matrix (of a gated pair: of one half).
std::int64_t checked_pack_rows(std::span<const HostTensor> parts, const WeightForm& form);
/// Unless the leaves, where there are any, cover k.
void check_leaves(std::span<const std::int64_t> leaf_ends, std::int64_t k);
/// `compute` is the type of the weight's inputs, `narrow` that of outputs that are not f32.
void check_matmul(const Tensor& out, const Tensor& in, const Weight& weight, PackKind kind, DType compute, DType narrow,
                  const Epilogue& e);

/// Unless a table of positions has a row for each, `offset` further down.
void check_positions(std::span<const std::int32_t> positions, std::int64_t table_rows, std::int32_t offset);
/// `out` is a matrix like `in`, f32 or `narrow`; in place only where it has the same type and stride.
void check_norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias, DType narrow);
/// Whether all heads share the weight, which else has a part for each; likewise the bias.
bool check_head_norm(const Tensor& x, std::int32_t head_dim, const Tensor& weight, const Tensor* bias);

/// Sizes of KV that every backend serves; throws Unsupported for a block that is too large.
void check_kv_shape(const KvShape& shape);

/// Returns the largest block that the tables name where ranges use them; 0 without any.
std::uint32_t check_batch(const BatchView& view, std::int32_t block_size);
/// Blocks 0 to count - 1.
std::vector<BlockId> first_blocks(std::uint32_t count);
/// Block ids as the numbers that kernels compute addresses from.
std::vector<std::uint32_t> raw_ids(std::span<const BlockId> blocks);
/// Small numbers of both signs, which f32, bf16 and f16 hold alike when they are read from these bytes, as do tiles of
/// KV of any layout: for measurements, since a device may draw less power, and run faster, over zeros.
std::vector<std::byte> some_numbers(std::size_t bytes);
/// For measurements, whose memory is no engine's plan. Throws OutOfMemory where `bytes` are more than the host has
/// left: memory that is promised and then not there ends the process. A device with memory of its own refuses by
/// itself.
void check_room(const Backend& backend, const std::string& what, double bytes);
/// Unless layer, head counts and sizes of a call fit the storage and the prepared batch.
void check_attention(const KvShape& s, std::int32_t block_size, std::int32_t num_layer_groups, std::int32_t layer,
                     const AttentionShape& shape);

}  // namespace pagedcore
