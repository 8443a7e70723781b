// A CUDA plugin from another build: nothing but its version may be looked at.
#include "backend/cuda_plugin.hpp"

extern "C" __attribute__((visibility("default"))) const pagedcore::CudaPlugin* pagedcore_cuda_plugin_v2() {
  static constexpr pagedcore::CudaPlugin plugin{"0.0.7", nullptr, nullptr};
  return &plugin;
}
