// The whole engine on the emulated device: the tokens of the CPU, KV in 8 bits, what is refused. What the engine
// promises on any device is tested by the sources of tests/cpp/engine.
#include <doctest/doctest.h>

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

}  // namespace

// rule: model.any-backend
TEST_CASE("greedy tokens are those of the CPU, up to the first that two logits contest") {
  const TinyModel model(151, 2, 64);
  check_like_cpu(generate_greedily(model, config_for("cuda")), generate_greedily(model, config_for("cpu")));
}

TEST_CASE("KV in 8 bits: less memory, nearly the same log-probabilities, the same bits for a request") {
  const TinyModel model(151, 2, 64);
  const auto config_of = [](KvCacheType kv_dtype) {
    EngineConfig config = config_for("cuda");
    config.cuda.kv_cache_dtype = kv_dtype;
    return config;
  };
  const auto greedy = [&](const EngineConfig& config) {
    Engine engine(model.description, model.weights, config);
    EngineRequest r = request(37, 1);
    r.sampling.temperature = 0.0f;
    const RequestId id = engine.submit(r);
    return drain(engine).at(id);
  };
  const Collected wide = greedy(config_of(KvCacheType::compute));
  const std::size_t wide_block = plan_memory(model.description, config_of(KvCacheType::compute)).kv_block;
  // bf16 alone moves log-probabilities of this model by up to 6e-2 (above). An int8 element, 1/254 of its row's largest
  // off at most, is as exact as a bf16 one nearly; an e4m3 element is off by up to 2^-4 of itself: five times more.
  for (const auto& [kv_dtype, tolerance] : {std::pair{KvCacheType::fp8, 0.36f}, {KvCacheType::int8, 0.12f}}) {
    CAPTURE(static_cast<int>(kv_dtype));
    const EngineConfig config = config_of(kv_dtype);
    const std::size_t block = plan_memory(model.description, config).kv_block;
    CHECK(block == wide_block / 2 + wide_block / 32);  // a scale of 4 bytes for 64 elements
    const Collected narrow = greedy(config);
    CHECK(narrow.error == "");
    bool differs = false;
    for (std::size_t t = 0; t < wide.tokens.size() && narrow.tokens[t] == wide.tokens[t]; ++t) {
      const float difference = narrow.logprobs[t].chosen.logprob - wide.logprobs[t].chosen.logprob;
      CHECK(std::fabs(difference) < tolerance);
      differs = differs || difference != 0.0f;
    }
    CHECK(differs);  // else nothing was rounded
    EngineConfig disturbed = config;
    disturbed.scheduler.max_batched_tokens = 7;
    disturbed.swap.swap_space = 4 << 20;
    const auto list = observed();
    same_bits::check_same(model, disturbed, list, same_bits::run_alone(model, config, list),
                          {"chunked and swapped", 3, 2, PreemptionMode::swap});
  }
}

TEST_CASE("what the device lacks is an error of the engine's constructor") {
  const TinyModel model(151, 2, 64), other_head(151, 2, 16);
  EngineConfig config = config_for("cuda");
  config.kv.num_blocks = 1000000;
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
