// Every kernel that a source launches, collected while the program is loaded: PC_LAUNCH adds them. CUDA loads a
// kernel's code when it is first asked for, which takes device memory, and seconds where the driver has to translate
// it. So all of them are loaded before memory is counted.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace pagedcore::cuda {

/// Always true.
bool list_kernel(const void* kernel);
std::size_t listed_kernels() noexcept;

template <auto kKernel>
struct Listed {
  static inline const bool here = list_kernel(reinterpret_cast<const void*>(kKernel));
};

/// Loads all kernels for the current device; the first error: cudaErrorNoKernelImageForDevice and its like where what
/// was compiled does not run on it.
cudaError_t load_kernels();

}  // namespace pagedcore::cuda
