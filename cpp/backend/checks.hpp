// Checks of arguments that every backend makes. All throw InvalidArgument, naming what does not fit.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/sum_tree.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore {

std::string shape_text(const Tensor& t);
/// Unless `t` is a well-formed [rows, cols] matrix; its type is the caller's to check.
void check_shape(const char* what, const Tensor& t, std::int64_t rows, std::int64_t cols);
void check_f32(const char* what, const Tensor& t, std::int64_t rows, std::int64_t cols);

/// Unless `bytes` are exactly the rows of `t` without gaps; returns the bytes of a row.
std::size_t checked_row_bytes(const char* what, const Tensor& t, std::size_t bytes);

/// Rows of the packed matrix (of a gated pair: of one half).
std::int64_t checked_pack_rows(std::span<const HostTensor> parts, const WeightForm& form);
/// Unless the leaves, where there are any, cover k.
void check_leaves(std::span<const std::int64_t> leaf_ends, std::int64_t k);
/// `compute` is the type of the weight's inputs, `narrow` that of outputs that are not f32.
void check_matmul(const Tensor& out, const Tensor& in, const Weight& weight, PackKind kind, DType compute, DType narrow,
                  const Epilogue& e);

/// Unless logits and routes fit each other.
void check_route(const Routing& out, const Tensor& logits, const RouterParams& p);
/// Unless shapes and types fit; of the weights n() and k() are looked at, and that all experts are alike.
void check_mixture(const Tensor& out, const Tensor& in, const Routing& routing, const Mixture& experts, DType compute);
/// Unless `out` has a row for each token, and `table` for each of their ids.
void check_embed(const Tensor& out, const Weight& table, std::span<const TokenId> tokens);
/// The same without tokens: some of them are not in the table.
void check_embed_some(const Tensor& out, const Weight& table, std::size_t num_tokens);
/// The same of positions, whose rows lie `offset` further down.
void check_embed_positions(const Tensor& out, const Weight& table, std::span<const std::int32_t> positions,
                           std::int32_t offset);
void check_add(const Tensor& x, const Tensor& y);
/// `out` is f32 or `narrow`.
void check_convert(const Tensor& out, const Tensor& in, DType narrow);
void check_gather_rows(const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices);
/// `out` is a matrix like `in`, f32 or `narrow`; in place only where it has the same type and stride.
void check_norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias, DType narrow);
/// Whether all heads share the weight, which else has a part for each; likewise the bias.
bool check_head_norm(const Tensor& x, std::int32_t head_dim, const Tensor& weight, const Tensor* bias);

/// Sizes of KV that every backend serves; throws Unsupported for a block that is too large.
void check_kv_shape(const KvShape& shape);

/// What calls that read a prepared batch are checked against.
struct BatchFacts {
  std::int64_t rows = 0;
  std::int32_t block_size = 0;
  std::int32_t num_layer_groups = 1;
  std::uint32_t largest_block = 0;  // that the tables name where ranges use them; 0 without any
};
/// Unless ranges, tables and rows fit each other.
BatchFacts checked_batch(const BatchView& view, std::int32_t block_size);
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
/// Unless the storage has all blocks, and a block so many tokens.
void check_copies(std::span<const BlockCopy> copies, std::uint32_t num_blocks, std::int32_t block_size);
void check_swap(std::span<const BlockId> blocks, std::size_t places, std::uint32_t num_blocks);
/// Unless layer, head counts and sizes fit the storage, and the storage and the call the batch.
void check_layer_call(const KvStorage& kv, const BatchFacts& batch, std::int32_t layer, const AttentionShape& shape);
/// Of Backend::combine, in order.
std::vector<TreeAddition> checked_additions(const Tensor& out, const PartialSums& sums, const Epilogue& epilogue);
/// `q` is f32 or `narrow`.
void check_rope_and_cache(const Tensor& q, const Tensor& qkv, std::int64_t rows, const AttentionShape& shape,
                          const RopeParams& rope, DType narrow);
/// `out` and `q` are f32 or `narrow`, not necessarily the same.
void check_attention(const Tensor& out, const Tensor& q, std::int64_t rows, const AttentionParams& p, DType narrow);

}  // namespace pagedcore
