// Every kernel source includes this first. The same source is compiled twice: by nvcc, and by the host compiler against
// the emulator of tests/cuda_emu (PAGEDCORE_CUDA_EMU, whose cuda_runtime.h stands in for the toolkit's). C++ has no
// words for shared memory and launches, so these three macros are all that differs, besides the instructions of
// ptx.cuh.
//
//   PC_SHARED(float[32], sums);              a static shared variable, aligned to 16 bytes or to its type's alignment
//   PC_DYNAMIC_SHARED(float, scratch);       float* scratch: the launch's dynamic shared memory, aligned to 16 bytes
//   PC_LAUNCH(kernel, grid, block, shared_bytes, stream, args...);   the kernel is a constant expression
//
// A launch that needs more than 48 KiB of dynamic shared memory calls cudaFuncSetAttribute first.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "kernels/kernel_list.hpp"

#ifndef PAGEDCORE_CUDA_EMU

#define PC_SHARED(T, name)     \
  using pc_type_of_##name = T; \
  __shared__ __align__(16) pc_type_of_##name name

#define PC_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char pc_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(pc_dynamic_shared)

#define PC_LAUNCH_UNLISTED(kernel, grid, block, shared_bytes, stream, ...) \
  (kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)

#else

#undef PC_LAUNCH
#define PC_LAUNCH_UNLISTED CUDA_EMU_LAUNCH

#endif

#define PC_LAUNCH(kernel, ...) \
  (static_cast<void>(::pagedcore::cuda::Listed<(kernel)>::here), PC_LAUNCH_UNLISTED(kernel, __VA_ARGS__))

namespace pagedcore::cuda {

inline constexpr unsigned kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

/// Shared memory that every supported GPU grants to one block (static and dynamic; sm_86, sm_89 and sm_120 set it).
inline constexpr unsigned kMaxSharedBytes = 99 * 1024;

/// The warp of the calling thread in a one-dimensional block, as a value that the compiler knows to be the same in all
/// lanes: code under a condition on it needs no help with divergence. All lanes of the warp call this together.
__device__ inline unsigned warp_index() { return __shfl_sync(kAllLanes, threadIdx.x / kWarpSize, 0); }
__device__ inline unsigned lane_index() { return threadIdx.x % kWarpSize; }

}  // namespace pagedcore::cuda
