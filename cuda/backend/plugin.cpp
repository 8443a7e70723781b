// The one function that the plugin exports.
#include "backend/backend.hpp"
#include "backend/cuda_plugin.hpp"
#include "backend/query.hpp"
#include "pagedcore/version.hpp"

extern "C" __attribute__((visibility("default"))) const pagedcore::CudaPlugin* pagedcore_cuda_plugin_v2() {
  static constexpr pagedcore::CudaPlugin plugin{
      PAGEDCORE_VERSION,
      [](const pagedcore::CudaOptions& options) -> std::unique_ptr<pagedcore::Backend> {
        return std::make_unique<pagedcore::cuda::CudaBackend>(options);
      },
      &pagedcore::cuda::query};
  return &plugin;
}
