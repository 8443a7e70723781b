// The kernel of AMX (cpu/matmul/kernel_amx.cpp) over tiles that are kept in memory: it runs on every CPU with AVX-512.
#pragma once

#include "cpu/matmul/kernel.hpp"

namespace pagedcore::cpu {

extern const MatmulKernel emulated_amx_kernel;

}  // namespace pagedcore::cpu
