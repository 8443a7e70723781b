// Every CPU: SSE2 on x86-64, NEON on arm64.
#include "cpu/matmul/simd_portable.hpp"
//
#include "cpu/matmul/epilogue.hpp"
#include "cpu/matmul/panel_kernel.hpp"

namespace pagedcore::cpu {

constinit const MatmulKernel portable_f32_kernel = panel_kernel<StepF32>();
constinit const MatmulKernel portable_bf16_kernel = panel_kernel<StepWidened>();

}  // namespace pagedcore::cpu
