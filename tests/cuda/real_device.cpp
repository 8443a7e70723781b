// The end-to-end tests of tests/cpp/engine on a GPU.
#include "device.hpp"

namespace device {

using namespace pagedcore;

const Device& under_test() {
  static const Device gpu{{DType::bf16, DType::f16}, 64, 6, 4, true};
  return gpu;
}

EngineConfig config(DType dtype, int threads) {
  EngineConfig config;
  config.device = "cuda";
  config.cuda.dtype = dtype;
  config.cuda.threads = threads;
  config.cuda.workspace = 4 << 20;
  config.cuda.plugin = CUDA_PLUGIN;
  return config;
}

}  // namespace device
