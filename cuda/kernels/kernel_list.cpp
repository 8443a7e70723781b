#include "kernels/kernel_list.hpp"

#include <vector>

namespace pagedcore::cuda {
namespace {

std::vector<const void*>& kernels() {
  static std::vector<const void*> list;  // made by the first kernel, in whatever order sources are initialised
  return list;
}

}  // namespace

bool list_kernel(const void* kernel) {
  kernels().push_back(kernel);
  return true;
}

std::size_t listed_kernels() noexcept { return kernels().size(); }

cudaError_t load_kernels() {
  for (const void* kernel : kernels()) {
    cudaFuncAttributes attributes;
    if (const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace pagedcore::cuda
