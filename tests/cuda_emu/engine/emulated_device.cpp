#include "device.hpp"

namespace device {

using namespace pagedcore;

const Device& under_test() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)  // ten times slower
  static const Device emulated{{DType::bf16}, {64}, 5, 2, false};
#else
  static const Device emulated{{DType::bf16, DType::f16}, {64}, 6, 4, true};
#endif
  return emulated;
}

EngineConfig config(DType dtype, int threads) {
  EngineConfig config;
  config.device = "cuda";
  config.cuda.dtype = dtype;
  config.cuda.threads = threads;
  config.cuda.workspace = 4 << 20;
  config.cuda.plugin = CUDA_EMU_PLUGIN;
  return config;
}

}  // namespace device
