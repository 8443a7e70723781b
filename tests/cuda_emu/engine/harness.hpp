// Engines on the emulated device, and requests for them.
#pragma once

#include <cmath>

#include "same_bits.hpp"

namespace cuda_test {

using namespace pagedcore;
using fake::Collected;
using fake::Collection;
using fake::drain;
using tiny::TinyModel;

inline EngineConfig config_for(const std::string& device) {
  EngineConfig config;
  config.kv.num_blocks = 120;
  config.device = device;
  config.cpu.threads = config.cuda.threads = 1;
  if (config.device != "cpu") {
    config.cuda.workspace = 4 << 20;
    config.cuda.plugin = CUDA_EMU_PLUGIN;
  }
  return config;
}

inline EngineRequest request(std::size_t prompt, std::uint32_t seed) { return same_bits::request(prompt, seed, 8, 2); }

/// Greedy, all at once.
inline std::vector<Collected> generate_greedily(const TinyModel& model, const EngineConfig& config) {
  Engine engine(model.description, model.weights, config);
  std::vector<RequestId> ids;
  for (std::uint32_t i = 0; i < 4; ++i) {
    EngineRequest r = request(5 + 11 * i, i);
    r.sampling.temperature = 0.0f;
    r.sampling.max_tokens = 12;
    ids.push_back(engine.submit(r));
  }
  const Collection all = drain(engine);
  std::vector<Collected> out;
  for (const RequestId id : ids) {
    CHECK(all.at(id).error == "");
    out.push_back(all.at(id));
  }
  return out;
}

/// The tokens are those of the CPU up to the first that two logits contest, and nearly as likely.
inline void check_like_cpu(const std::vector<Collected>& cuda, const std::vector<Collected>& cpu) {
  constexpr float tolerance = 6e-2f;  // of log-probabilities: bf16 activations through two layers
  int compared = 0;
  for (std::size_t i = 0; i < cpu.size(); ++i) {
    for (std::size_t t = 0; t < cpu[i].tokens.size(); ++t) {
      const auto& top = cpu[i].logprobs[t].top;
      if (top[0].logprob - top[1].logprob < tolerance) break;
      REQUIRE(cuda[i].tokens[t] == cpu[i].tokens[t]);
      CHECK(std::fabs(cuda[i].logprobs[t].chosen.logprob - cpu[i].logprobs[t].chosen.logprob) < tolerance);
      ++compared;
    }
  }
  CHECK(compared >= 24);  // else the model is no test
}

}  // namespace cuda_test
