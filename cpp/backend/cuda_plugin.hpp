// The interface between libpagedcore and libpagedcore_cuda, a shared object of its own: one exported function. Its name
// changes when the meaning of this struct does. Both are C++ of the same version, compiler and standard library.
#pragma once

#include <memory>

#include "pagedcore/backend.hpp"
#include "pagedcore/devices.hpp"

namespace pagedcore {

struct CudaPlugin {
  const char* version;  // of pagedcore; the core takes its own only
  /// Throws Error.
  std::unique_ptr<Backend> (*make_backend)(const CudaOptions& options);
  /// Fills in all but the fields that are about the plugin. What is missing is a `problem`, no exception.
  void (*query)(CudaStatus& status);
};

using CudaPluginEntry = const CudaPlugin*();
inline constexpr const char* kCudaPluginEntry = "pagedcore_cuda_plugin_v2";
inline constexpr const char* kCudaPluginFile = "libpagedcore_cuda.so";

}  // namespace pagedcore
