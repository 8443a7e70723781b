// The words of CUDA C++ for the host compiler: qualifiers, built-in variables, shared memory, barriers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "emulator/failure.hpp"

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __noinline__  // the standard library has an attribute of this name
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ write_PC_SHARED_instead
#define __activemask() use_an_explicit_mask_instead_of___activemask()

// The built-in variables of the running thread.
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
inline constexpr int warpSize = 32;

#define PC_SHARED(T, name)                                    \
  using pc_type_of_##name = T;                                \
  static const char pc_key_of_##name = 0;                     \
  pc_type_of_##name& name = *static_cast<pc_type_of_##name*>( \
      ::cuda_emu::static_shared(&pc_key_of_##name, sizeof(pc_type_of_##name), alignof(pc_type_of_##name)))

#define PC_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::cuda_emu::dynamic_shared())

namespace cuda_emu {

/// The running block's variable for this key, filled with poison at the block's start. It lies at exactly the promised
/// alignment (at least 16) and no better one.
void* static_shared(const void* key, std::size_t bytes, std::size_t alignment);
void* dynamic_shared();

enum class BarrierKind { sync, count, all, any };
int barrier(BarrierKind kind, int predicate, const Where& where);
void fence();

}  // namespace cuda_emu

inline void __syncthreads(const cuda_emu::Where& where = cuda_emu::Where::current()) {
  cuda_emu::barrier(cuda_emu::BarrierKind::sync, 0, where);
}
inline int __syncthreads_count(int predicate, const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return cuda_emu::barrier(cuda_emu::BarrierKind::count, predicate, where);
}
inline int __syncthreads_and(int predicate, const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return cuda_emu::barrier(cuda_emu::BarrierKind::all, predicate, where);
}
inline int __syncthreads_or(int predicate, const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return cuda_emu::barrier(cuda_emu::BarrierKind::any, predicate, where);
}

// Two fences with an atomic operation between them are how one block passes data to another. The emulator takes any two
// fences as ordered, so a missing one is a race for ThreadSanitizer and a misplaced atomic is not.
inline void __threadfence() { cuda_emu::fence(); }
inline void __threadfence_block() { cuda_emu::fence(); }
