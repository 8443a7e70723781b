#include "device.hpp"

namespace device {

using namespace pagedcore;

const Device& under_test() {
  static const Device cpu{{DType::f32, DType::bf16}, {16, 5}, 24, 32, true};
  return cpu;
}

EngineConfig config(DType dtype, int threads) {
  EngineConfig config;
  config.cpu.dtype = dtype;
  config.cpu.threads = threads;
  return config;
}

}  // namespace device
