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

/// What the plugin's code is to a GPU of a compute capability. `code`: as PAGEDCORE_CUDA_ARCHITECTURES, "80-real,90":
/// machine code for a GPU of the same first number and the same or a higher second one, and, without "-real", PTX,
/// which the driver compiles for that and every newer one.
enum class Code { none, machine, ptx };
Code code_for(int major, int minor, const char* code);

/// CudaPlugin::query.
void query(CudaStatus& status);

}  // namespace pagedcore::cuda
