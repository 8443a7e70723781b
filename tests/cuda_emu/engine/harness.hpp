// Engines on the emulated device, and requests for them.
#pragma once

#include "fake_executor.hpp"
#include "tiny_model.hpp"

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

inline EngineRequest request(std::size_t prompt, std::uint32_t seed) {
  EngineRequest r;
  for (std::size_t i = 0; i < prompt; ++i) r.prompt.push_back(static_cast<TokenId>((seed * 13 + i * i * 5 + i) % 151));
  r.sampling.max_tokens = 8;
  r.sampling.logprobs = 2;
  r.sampling.seed = seed;
  return r;
}

}  // namespace cuda_test
