// Engines on the emulated device, and requests for them.
#pragma once

#include "same_bits.hpp"

namespace cuda_test {

using namespace pagedcore;
using fake::Collected;
using fake::Collection;
using fake::drain;
using tiny::TinyModel;

inline EngineConfig config_for(const std::string& device) {
  EngineConfig config;
  config.num_blocks = 120;
  config.device = device;
  config.cpu.threads = config.cuda.threads = 1;
  config.cuda.workspace_bytes = 4 << 20;
  config.cuda.plugin = CUDA_EMU_PLUGIN;
  return config;
}

inline EngineRequest request(std::size_t prompt, std::uint32_t seed) { return same_bits::request(prompt, seed, 8, 2); }

}  // namespace cuda_test
