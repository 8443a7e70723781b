#include "backend/cuda_plugin.hpp"

extern "C" __attribute__((visibility("default"))) const pagedcore::CudaPlugin* pagedcore_cuda_plugin_v1() {
  static constexpr pagedcore::CudaPlugin plugin{"0.0.0", nullptr};
  return &plugin;
}
