// The whole engine on the emulated device: the tokens of the CPU, and the same bits under every disturbance.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>

#include "harness.hpp"

using namespace cuda_test;

namespace {

std::vector<EngineRequest> observed() {
  std::vector<EngineRequest> list{request(1, 0), request(16, 1), request(37, 2)};
  list[0].sampling.temperature = 0.0f;
  list[1].sampling.n = 2;
  list[2].sampling.top_p = 0.9f;
  return list;
}

using Bits = std::vector<std::vector<std::uint32_t>>;

Bits run(Engine& engine, std::uint32_t strangers = 0) {
  std::vector<RequestId> ids;
  const auto list = observed();
  for (std::uint32_t i = 0; i < strangers; ++i) engine.submit(request(3 + i * 7 % 30, 1000 + i));
  for (const EngineRequest& r : list) ids.push_back(engine.submit(r));
  const Collection all = drain(engine);
  Bits result;
  for (std::size_t i = 0; i < list.size(); ++i) {
    for (std::uint32_t sample = 0; sample < list[i].sampling.n; ++sample) {
      const Collected& c = all.at(ids[i], sample);
      CHECK(c.error == "");
      CHECK(c.tokens.size() == 8);
      std::vector<std::uint32_t> bits;
      for (const TokenId t : c.tokens) bits.push_back(static_cast<std::uint32_t>(t));
      for (const PositionLogprobs& p : c.logprobs) bits.push_back(std::bit_cast<std::uint32_t>(p.chosen.logprob));
      result.push_back(std::move(bits));
    }
  }
  return result;
}

}  // namespace

TEST_CASE("greedy tokens are those of the CPU, up to the first that two logits contest") {
  const TinyModel model(151, 2, 64);
  const auto generate = [&](const std::string& device) {
    Engine engine(model.description, model.weights, config_for(device));
    std::vector<RequestId> ids;
    for (std::uint32_t i = 0; i < 4; ++i) {
      EngineRequest r = request(5 + 11 * i, i);
      r.sampling.temperature = 0.0f;
      r.sampling.max_tokens = 12;
      ids.push_back(engine.submit(r));
    }
    const Collection all = drain(engine);
    std::vector<Collected> out;
    for (const RequestId id : ids) out.push_back(all.at(id));
    return out;
  };
  const auto cpu = generate("cpu"), cuda = generate("cuda");
  constexpr float tolerance = 6e-2f;  // of log-probabilities: bf16 activations through two layers
  int compared = 0;
  for (std::size_t i = 0; i < cpu.size(); ++i) {
    CHECK(cuda[i].error == "");
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

TEST_CASE("same request, same bits") {
  const TinyModel model(151, 2, 64);
  const EngineConfig base = config_for("cuda");
  const Bits alone = [&] {
    Bits all;
    for (std::size_t i = 0; i < observed().size(); ++i) {
      Engine engine(model.description, model.weights, base);
      const EngineRequest r = observed()[i];
      const RequestId id = engine.submit(r);
      const Collection news = drain(engine);
      for (std::uint32_t sample = 0; sample < r.sampling.n; ++sample) {
        const Collected& c = news.at(id, sample);
        std::vector<std::uint32_t> bits;
        for (const TokenId t : c.tokens) bits.push_back(static_cast<std::uint32_t>(t));
        for (const PositionLogprobs& p : c.logprobs) bits.push_back(std::bit_cast<std::uint32_t>(p.chosen.logprob));
        all.push_back(std::move(bits));
      }
    }
    return all;
  }();
  const auto same = [&](const EngineConfig& config, std::uint32_t strangers, const char* what, std::uint32_t period = 0,
                        PreemptionMode mode = PreemptionMode::recompute) {
    CAPTURE(what);
    Engine engine(model.description, model.weights, config);
    engine.force_preemption(period, mode);
    CHECK(run(engine, strangers) == alone);
    if (period > 0) {
      const char* key = mode == PreemptionMode::swap ? "preemptions_swap" : "preemptions_recompute";
      CHECK(engine.stats().at(key) > 0);
    }
  };
  same(base, 0, "together");
  same(base, 6, "among strangers");
  EngineConfig config = base;
  config.max_batched_tokens = 7;
  same(config, 3, "chunked prefill");
  same(base, 2, "preempted", 2);
  config = base;
  config.swap_bytes = 4 << 20;
  same(config, 2, "swapped", 2, PreemptionMode::swap);
  config = base;
  config.block_size = 4;
  config.enable_prefix_caching = false;
  same(config, 0, "small blocks, no prefix cache");
  Engine engine(model.description, model.weights, base);
  CHECK(run(engine) == alone);
  CHECK(run(engine) == alone);
  CHECK(engine.stats().at("prefix_hit_tokens") > 0);
}

TEST_CASE("beam search forks and copies blocks on the device") {
  const TinyModel model(151, 2, 64);
  const auto search = [&](const std::string& device) {
    Engine engine(model.description, model.weights, config_for(device));
    EngineRequest r = request(13, 3);
    r.beam = BeamSearchParams{};
    r.beam->width = 3;
    r.beam->max_tokens = 6;
    const RequestId id = engine.submit(r);
    return drain(engine).at(id);
  };
  const Collected cpu = search("cpu"), cuda = search("cuda");
  CHECK(cuda.error == "");
  CHECK(cuda.tokens.size() == cpu.tokens.size());
}

TEST_CASE("what the device lacks is an error of the engine's constructor") {
  const TinyModel model(151, 2, 64), other_head(151, 2, 16);
  EngineConfig config = config_for("cuda");
  config.num_blocks = 1000000;
  CHECK_THROWS_WITH_AS(Engine(model.description, model.weights, config), doctest::Contains("bytes free"), OutOfMemory);
  config = config_for("cuda:1");
  CHECK_THROWS_WITH_AS(Engine(model.description, model.weights, config), doctest::Contains("1 NVIDIA GPU"),
                       InvalidArgument);
  config = config_for("cuda");
  CHECK_THROWS_WITH_AS(Engine(other_head.description, other_head.weights, config), doctest::Contains("head size 16"),
                       Unsupported);
  config.cuda.plugin = "/nowhere/libpagedcore_cuda.so";
  CHECK_THROWS_WITH_AS(Engine(model.description, model.weights, config),
                       doctest::Contains("the CUDA backend is not available: /nowhere/libpagedcore_cuda.so"),
                       Unsupported);
  config.device = "gpu";
  CHECK_THROWS_WITH_AS(Engine(model.description, model.weights, config), doctest::Contains("device 'gpu'"),
                       InvalidArgument);
}
