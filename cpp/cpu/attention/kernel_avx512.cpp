#include "cpu/attention/simd_avx512.hpp"

namespace pagedcore::cpu::attention_detail {

const AttentionKernels kAvx512Kernels = {
    .f32 = AttentionKernel<F32Steps<Avx512, 6, 24>>::attend,
    .bf16 = AttentionKernel<Bf16Steps<Avx512, 5, 20>>::attend,
    .bf16_dot = nullptr,
    .bf16_tile = nullptr,
    .tile_begin = nullptr,
    .tile_end = nullptr,
    .rotate = rotate_heads,
    .narrow = narrow_to_bf16,
    .widen_f32 = {widen_k_f32, widen_v_f32},
    .widen_bf16 = {widen_k_bf16, widen_v_bf16},
};

}  // namespace pagedcore::cpu::attention_detail
