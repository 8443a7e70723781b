// avx2: see panel_kernel.hpp.
#include "cpu/matmul/simd_avx2.hpp"
//
#include "cpu/matmul/epilogue.hpp"
#include "cpu/matmul/panel_kernel.hpp"

namespace pagedcore::cpu {

constinit const MatmulKernel avx2_f32_kernel = panel_kernel<StepF32>();
constinit const MatmulKernel avx2_bf16_kernel = panel_kernel<StepWidened>();

}  // namespace pagedcore::cpu
