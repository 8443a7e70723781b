// Operations on rows that are no matmul and no attention. Each checks its arguments (InvalidArgument names the
// mismatch) before it writes anything; see Backend for what they compute. Inputs and outputs may not overlap unless it
// says so.
#pragma once

#include <cstdint>
#include <span>

#include "cpu/elementwise/norm_kernels.hpp"
#include "cpu/isa.hpp"
#include "cpu/thread_pool.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu {

const NormKernels& norm_kernels(Isa isa) noexcept;

/// out: f32 (may be `in`) or bf16.
void norm(ThreadPool& pool, const NormKernels& kernels, const Tensor& out, const Tensor& in, const Tensor& weight,
          const Tensor* bias, const NormParams& params);
void head_norm(ThreadPool& pool, const NormKernels& kernels, const Tensor& x, std::int32_t head_dim,
               const Tensor& weight, const Tensor* bias, const NormParams& params);
void add(ThreadPool& pool, const Tensor& x, const Tensor& y, float scale);
/// out: f32 or bf16.
void convert(ThreadPool& pool, const Tensor& out, const Tensor& in);
void combine(ThreadPool& pool, const Tensor& out, const PartialSums& sums, const Epilogue& epilogue);
void scale_softcap(ThreadPool& pool, const Tensor& x, float scale, float softcap);

void embed(ThreadPool& pool, const Tensor& out, const Weight& table, std::span<const TokenId> tokens, float scale);
void embed_some(ThreadPool& pool, const Tensor& out, const Weight& table, std::span<const TokenId> tokens, float scale,
                TokenId first);
void embed_positions(ThreadPool& pool, const Tensor& out, const Weight& table, std::span<const std::int32_t> positions,
                     std::int32_t offset);
void gather_rows(ThreadPool& pool, const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices);

}  // namespace pagedcore::cpu
