// Sampling on the device within the engine: tokens and log-probabilities are those of the host's sampling, whatever
// else happens to the requests.
#include "harness.hpp"
#include "sampling_requests.hpp"

using namespace cuda_test;

namespace {

constexpr std::uint32_t kTokens = 6;

}  // namespace

TEST_CASE("tokens and log-probabilities are those of the host, for all parameters and beams") {
  const TinyModel model(sampling_requests::kVocab, 2, 64);
  EngineConfig config = config_for("cuda");
  config.cuda.sample_on_device = false;
  Engine host(model.description, model.weights, config);
  const auto expected = sampling_requests::run(host, kTokens);
  config.cuda.sample_on_device = true;
  const auto same = [&](const EngineConfig& c, const char* what, std::uint32_t period = 0,
                        PreemptionMode mode = PreemptionMode::recompute) {
    CAPTURE(what);
    Engine engine(model.description, model.weights, c);
    engine.force_preemption(period, mode);
    sampling_requests::check_same(sampling_requests::run(engine, kTokens), expected);
  };
  same(config, "all at once");
  EngineConfig other = config;
  other.scheduler.max_batched_tokens = 9;
  other.cuda.graph_rows = 0;
  same(other, "chunked prefill, few rows of logits at a time, kernels one by one");
  other = config;
  other.swap.swap_space = 4 << 20;
  same(other, "preempted", 3);
  same(other, "swapped", 3, PreemptionMode::swap);
}

TEST_CASE("a request whose sampling fails says why, as on the host, and fails alone") {
  const TinyModel model(sampling_requests::kVocab, 2, 64);
  for (const bool on_device : {true, false}) {
    EngineConfig config = config_for("cuda");
    config.cuda.sample_on_device = on_device;
    Engine engine(model.description, model.weights, config);
    EngineRequest bad = request(9, 1);
    bad.sampling.allowed_token_ids = {3, 4};
    bad.sampling.banned_tokens = {3, 4};
    const RequestId failing = engine.submit(bad), fine = engine.submit(request(9, 2));
    const Collection all = drain(engine);
    CHECK(all.at(failing).finish == FinishReason::error);
    CHECK(all.at(failing).error.find("leave none of 151; allow at least one") != std::string::npos);
    CHECK(all.at(fine).error == "");
    CHECK(all.at(fine).tokens.size() == 8);
  }
}
