// Lists the GPUs and says whether each can be used: for the backend's constructor and for `pagedcore doctor`.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "pagedcore/devices.hpp"

namespace pagedcore::cuda {

/// "cudaErrorName: what it means".
std::string error_text(cudaError_t error);

/// GPUs of this machine, at least one. Throws Unsupported, with the remedy, for no driver, an old one, or no GPU.
int device_count();

/// Why the GPU is not served; empty: it is.
std::string why_unserved(int index, const cudaDeviceProp& properties);

/// CudaPlugin::query.
void query(CudaStatus& status);

}  // namespace pagedcore::cuda
