// Same request, same bits: tokens and log-probabilities of a request do not depend on its company, on how its prompt is
// cut, on cached prefixes, on preemption or on the number of threads.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "device.hpp"
#include "same_bits.hpp"
#include "sampling_requests.hpp"

using fake::Collected;
using fake::Collection;
using fake::drain;
using tiny::TinyModel;
using namespace pagedcore;

namespace {

EngineRequest request(std::size_t prompt, std::uint32_t seed) {
  return same_bits::request(prompt, seed, device::under_test().tokens, 3);
}

/// The requests that are observed: greedy, sampled, truncated, penalised, several samples, a scored prompt.
std::vector<EngineRequest> observed() {
  std::vector<EngineRequest> list;
  for (std::uint32_t i = 0; i < 6; ++i) list.push_back(request(std::vector<std::size_t>{1, 15, 16, 17, 40, 77}[i], i));
  sampling_requests::vary_sampling(list);
  list[4].stream = true;
  list[5].sampling.n = 2;
  list[5].sampling.min_p = 0.05f;
  if (!device::under_test().every_disturbance) return {list[1], list[2], list[4]};
  return list;
}

EngineConfig config_for(DType dtype, int threads = 1) {
  EngineConfig config = device::config(dtype, threads);
  config.kv.num_blocks = 2000;
  return config;
}
EngineConfig first_config() { return config_for(device::under_test().dtypes.front()); }

}  // namespace

// rule: engine.same-request-same-bits
TEST_CASE("same request, same bits") {
  const std::uint32_t strangers = device::under_test().strangers;
  const bool every = device::under_test().every_disturbance;
  using Numbers = std::vector<std::uint32_t>;
  std::vector<std::pair<std::int32_t, DType>> models;
  for (const std::int32_t head_dim : device::under_test().head_dims)
    for (const DType dtype : device::under_test().dtypes) models.emplace_back(head_dim, dtype);
  for (const auto& [head_dim, dtype] : models) {
    CAPTURE(info(dtype).name);
    CAPTURE(head_dim);
    const TinyModel model = device::model(head_dim);
    const EngineConfig base = config_for(dtype);
    const auto list = observed();
    const same_bits::Bits alone = same_bits::run_alone(model, base, list);
    const auto same = [&](const EngineConfig& config, std::uint32_t beside, std::uint32_t period, const char* what,
                          PreemptionMode mode = PreemptionMode::recompute) {
      same_bits::check_same(model, config, list, alone, {what, beside, period, mode});
    };
    EngineConfig config = base;
    same(config, 0, 0, "together");
    same(config, strangers, 0, "among strangers");
    for (const std::uint32_t rows : every ? Numbers{64, 7} : Numbers{7}) {
      config.scheduler.max_batched_tokens = rows;
      if (every) same(config, 0, 0, "chunked prefill");
      same(config, strangers, 0, "chunked prefill among strangers");
    }
    config = base;
    for (const std::uint32_t period : every ? Numbers{1, 2, 3} : Numbers{3}) {
      config.scheduler.max_batched_tokens = period == 2 ? 7 : 512;
      same(config, strangers / 4, period, "preempted");
    }
    config.swap.swap_space = 4 << 20;
    same(config, strangers / 4, 2, "swapped", PreemptionMode::swap);
    for (const std::uint32_t threads : every ? Numbers{2, 3} : Numbers{3})
      same(config_for(dtype, static_cast<int>(threads)), strangers / 2, 0, "several threads");
    config = base;
    config.kv.block_size = 4;
    if (every) same(config, 3, 0, "small blocks");
    config.kv.enable_prefix_caching = false;
    same(config, 3, 0, "no prefix cache");
    config = base;
    config.kv.num_blocks = 20;
    same(config, strangers / 4, 0, "few blocks");

    Engine engine(model.description, model.weights, base);
    same_bits::check_same_when_cached(engine, list, alone);
    engine.clear_prefix_cache();
    CHECK(same_bits::run(engine, list, 4) == alone);
  }
}

TEST_CASE("scored prompts: every token but the first, the same however the prompt was cut") {
  const TinyModel model = device::model();
  std::vector<std::uint32_t> first;
  for (const std::uint32_t rows : {512u, 64u, 7u}) {
    EngineConfig config = first_config();
    config.scheduler.max_batched_tokens = rows;
    Engine engine(model.description, model.weights, config);
    EngineRequest r = request(90, 5);
    r.sampling.max_tokens = rows == 64 ? 0 : 3;
    r.sampling.prompt_logprobs = 2;
    engine.submit(r);
    std::vector<PositionLogprobs> scores;
    while (engine.busy()) {
      for (const EngineOutput& o : engine.wait(1.0)) {
        CHECK(o.error == "");
        for (const auto& p : o.prompt_logprobs.positions()) scores.push_back(p);
      }
    }
    REQUIRE(scores.size() == 89);
    std::vector<std::uint32_t> got;
    for (std::size_t i = 0; i < scores.size(); ++i) {
      CHECK(scores[i].chosen.token == r.prompt[i + 1]);
      CHECK(scores[i].top.size() == 2);
      CHECK(scores[i].top[0].logprob >= scores[i].chosen.logprob);
      got.push_back(std::bit_cast<std::uint32_t>(scores[i].chosen.logprob));
    }
    if (first.empty()) first = got;
    CHECK(got == first);
  }
}

TEST_CASE("a generated token's log-probability is the one it gets when scored as a prompt") {
  const TinyModel model = device::model();
  Engine engine(model.description, model.weights, config_for(DType::bf16));
  EngineRequest generate = request(20, 8);
  engine.submit(generate);
  const Collection all = drain(engine);
  const Collected& c = all.at(RequestId{1});
  EngineRequest score = generate;
  score.prompt.insert(score.prompt.end(), c.tokens.begin(), c.tokens.end());
  score.sampling.max_tokens = 0;
  score.sampling.prompt_logprobs = 0;
  engine.submit(score);
  std::vector<PositionLogprobs> scores;
  while (engine.busy()) {
    for (const EngineOutput& o : engine.wait(1.0))
      for (const auto& p : o.prompt_logprobs.positions()) scores.push_back(p);
  }
  REQUIRE(scores.size() == 19 + c.tokens.size());
  for (std::size_t i = 0; i < c.tokens.size(); ++i) {
    CHECK(std::bit_cast<std::uint32_t>(scores[19 + i].chosen.logprob) ==
          std::bit_cast<std::uint32_t>(c.logprobs[i].chosen.logprob));
  }
}

// rule: engine.request-fails-alone
TEST_CASE("a request whose sampling fails ends alone, with the reason") {
  TinyModel model = device::model();
  auto& embeddings = model.values("embed.weight");
  for (int i = 0; i < 64; ++i)
    embeddings[150 * 64 + static_cast<std::size_t>(i)] = std::numeric_limits<float>::quiet_NaN();
  Engine engine(model.description, model.weights, first_config());
  EngineRequest poisoned = request(30, 1), banned = request(30, 2), scored = request(30, 3), good = request(30, 4);
  poisoned.prompt.back() = 150;  // its embedding is NaN
  banned.sampling.allowed_token_ids = {7};
  banned.sampling.banned_tokens = {7};
  scored.prompt[3] = 150;
  scored.sampling.prompt_logprobs = 0;
  for (EngineRequest* r : {&poisoned, &banned, &scored, &good}) {
    for (TokenId& t : r->prompt) t = t == 150 && r != &poisoned && r != &scored ? 1 : t;
    r->sampling.banned_tokens.push_back(150);
    r->sampling.n = 2;
  }
  const RequestId a = engine.submit(poisoned), b = engine.submit(banned), c = engine.submit(scored),
                  d = engine.submit(good);
  const Collection all = drain(engine);
  for (const RequestId id : {a, b, c}) {
    for (const std::uint32_t sample : {0u, 1u}) CHECK(all.at(id, sample).finish == FinishReason::error);
  }
  CHECK(all.at(a).error.find("logit of token 0 is nan") != std::string::npos);
  CHECK(all.at(b).error.find("no token may be chosen") != std::string::npos);
  CHECK(all.at(c).error.find("scoring failed") != std::string::npos);
  CHECK(all.at(d).finish == FinishReason::length);
  CHECK(all.at(d, 1).tokens.size() == device::under_test().tokens);
  CHECK(engine.stats().at("requests_failed") == 3);
  CHECK(engine.stats().at("blocks_used") == 0);
}

TEST_CASE("an engine is closed once and for all, and says what it is") {
  const TinyModel model = device::model();
  Engine engine(model.description, model.weights, first_config());
  CHECK(engine.model().vocab_size == 151);
  CHECK(engine.memory_plan().num_blocks == 2000);
  CHECK_FALSE(engine.describe().empty());
  engine.submit(request(10, 1));
  engine.close();
  engine.close();
  CHECK_THROWS_AS(engine.submit(request(10, 1)), Aborted);
  CHECK_THROWS_AS(engine.wait(0.0), Aborted);
  CHECK_THROWS_AS(engine.stats(), Aborted);
  CHECK(engine.memory_plan().num_blocks == 2000);
}

TEST_CASE("an engine that cannot be made throws and leaves nothing behind") {
  const TinyModel model = device::model();
  EngineConfig config = first_config();
  config.kv.kv_cache_memory = 10;
  config.kv.num_blocks = 0;
  CHECK_THROWS_AS(Engine(model.description, model.weights, config), InvalidArgument);
  CHECK_THROWS_AS(Engine(model.description, WeightMap(), first_config()), Corrupt);
}
