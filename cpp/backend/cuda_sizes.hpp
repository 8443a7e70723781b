// What the CUDA backend's tensors take, and what it leaves of a GPU's memory for them. Arithmetic: it needs neither the
// plugin nor a GPU. cuda/sizes has it, as part of this library and of the plugin.
#pragma once

#include <cstddef>
#include <memory>

#include "pagedcore/backend.hpp"

namespace pagedcore {

class CudaSizes : public TensorSizes {
 public:
  /// Bytes that tensors may take where `free` bytes of a GPU's memory are free: gpu_memory_utilization of them, less
  /// what is left for the driver, and less the workspace.
  virtual std::size_t usable(std::size_t free) const = 0;
};
/// Throws InvalidArgument for options that no CUDA backend takes.
std::unique_ptr<CudaSizes> cuda_sizes(const CudaOptions& options);

}  // namespace pagedcore
