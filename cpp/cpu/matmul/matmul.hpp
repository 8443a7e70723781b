// Packed matrices and the matmuls over them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "cpu/isa.hpp"
#include "cpu/large_memory.hpp"
#include "cpu/thread_pool.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu {

struct IntegerKernel;

/// What panels may be besides numbers of the compute type.
struct PanelForms {
  bool native = false;                     // in the block formats that kernels widen
  const IntegerKernel* integer = nullptr;  // those formats, whose codes this kernel multiplies
  DType rounded = DType::f32;              // a block format for matrices that are in none; f32: they stay dense
  PanelForms(bool keep_native = false, const IntegerKernel* kernel = nullptr) : native(keep_native), integer(kernel) {}
};

/// Packs `parts` for `isa`, computing in `dtype` (f32 or bf16; integer products need bf16), with panels of `forms`. See
/// Backend::pack.
std::unique_ptr<Weight> pack_weight(ThreadPool& pool, std::span<const HostTensor> parts, const WeightForm& form,
                                    Isa isa, DType dtype, const PanelForms& forms = {});
PackedSize packed_weight_size(std::span<const HostTensor> parts, const WeightForm& form, Isa isa, DType dtype,
                              const PanelForms& forms);
std::size_t packed_weight_bytes(std::int64_t n, std::int64_t k, const WeightForm& form, Isa isa, DType dtype);

/// See Backend::matmul. `weight` was made by pack_weight; `scratch` is of the pool's workers.
void matmul(ThreadPool& pool, Scratch& scratch, const Tensor& out, const Tensor& in, const Weight& weight,
            const Epilogue& epilogue);

/// out[0, k) = row `row` of a stacked weight, as f32.
void unpack_row(const Weight& weight, std::int64_t row, float* out);

}  // namespace pagedcore::cpu
