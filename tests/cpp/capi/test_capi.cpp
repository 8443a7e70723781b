#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "harness.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/pagedcore.h"

extern "C" int c_program(const char* container_path);  // 0, or the line of the first check that failed

using namespace capi_test;

TEST_CASE("a program in C99 opens, submits, collects and closes") {
  const Container container;
  CHECK(c_program(container.path().c_str()) == 0);
}

// rule: capi.same-bits
TEST_CASE("embeddings are those of the C++ engine, to the bit") {
  const Container container;
  pagedcore::EngineConfig config;
  config.kv.num_blocks = 100;
  config.cpu.threads = 1;
  config.cpu.dtype = pagedcore::DType::f32;
  pagedcore::Engine engine(container.model.description, container.model.weights, config);
  pagedcore::EngineRequest request;
  request.prompt = {5, 6, 7};
  request.embedding.emplace().pooling = pagedcore::Pooling::mean;
  request.embedding->dimensions = 10;
  engine.submit(request);
  std::vector<float> expected;
  while (engine.busy())
    for (auto& o : engine.wait(1.0)) expected = std::move(o.embedding);
  REQUIRE(expected.size() == 10);

  const SmallEngine options;
  pc_engine* handle = nullptr;
  REQUIRE(pc_engine_open(container.path().c_str(), options, &handle) == PC_OK);
  const int32_t prompt[] = {5, 6, 7};
  const Options embedding(PC_OPTIONS_EMBEDDING, {{"pooling", "mean"}, {"dimensions", "10"}});
  uint64_t id = 0;
  REQUIRE(pc_engine_submit(handle, prompt, 3, embedding, &id) == PC_OK);
  pc_outputs* outputs = nullptr;
  while (pc_outputs_count(outputs) == 0) {
    pc_outputs_free(outputs);
    REQUIRE(pc_engine_wait(handle, 1.0, &outputs) == PC_OK);
  }
  CHECK(pc_outputs_get(outputs, 0)->finish == PC_FINISH_LENGTH);
  const float* numbers = nullptr;
  size_t dimensions = 0;
  REQUIRE(pc_outputs_embedding(outputs, 0, &numbers, &dimensions) == PC_OK);
  CHECK(std::vector<float>(numbers, numbers + dimensions) == expected);
  CHECK(pc_outputs_embedding(outputs, 1, &numbers, &dimensions) == PC_INVALID_ARGUMENT);
  pc_outputs_free(outputs);
  CHECK(pc_options_set(embedding, "pooling", "max") == PC_INVALID_ARGUMENT);
  pc_engine_free(handle);
}

// rule: capi.same-bits
TEST_CASE("the C ABI gives what the C++ engine gives, to the bit") {
  const Container container;
  pagedcore::EngineConfig config;
  config.kv.num_blocks = 100;
  config.cpu.threads = 1;
  config.cpu.dtype = pagedcore::DType::f32;
  pagedcore::Engine engine(container.model.description, container.model.weights, config);
  pagedcore::EngineRequest request;
  request.prompt = {5, 6, 7};
  request.sampling.n = 2;
  request.sampling.temperature = 0.8f;
  request.sampling.top_p = 0.95f;
  request.sampling.logprobs = 2;
  request.sampling.prompt_logprobs = 1;
  request.sampling.seed = 11;
  request.sampling.logit_bias = {{9, 2.5f}};
  request.sampling.banned_tokens = {3};
  engine.submit(request);
  std::vector<pagedcore::EngineOutput> expected;
  while (engine.busy()) {
    for (auto& o : engine.wait(1.0)) expected.push_back(std::move(o));
  }

  const SmallEngine options;
  pc_engine* handle = nullptr;
  REQUIRE(pc_engine_open(container.path().c_str(), options, &handle) == PC_OK);
  const pc_token_bias bias = {9, 2.5f};
  const int32_t banned = 3, prompt[] = {5, 6, 7};
  const Options sampling(PC_OPTIONS_SAMPLING, {{"n", "2"},
                                               {"temperature", "0.8"},
                                               {"top_p", "0.95"},
                                               {"logprobs", "2"},
                                               {"prompt_logprobs", "1"},
                                               {"seed", "11"}});
  REQUIRE(pc_options_set_biases(sampling, "logit_bias", &bias, 1) == PC_OK);
  REQUIRE(pc_options_set_tokens(sampling, "banned_tokens", &banned, 1) == PC_OK);
  uint64_t id = 0;
  REQUIRE(pc_engine_submit(handle, prompt, 3, sampling, &id) == PC_OK);
  std::size_t seen = 0;
  int32_t busy = 1;
  while (busy != 0) {
    pc_outputs* outputs = nullptr;
    REQUIRE(pc_engine_wait(handle, 1.0, &outputs) == PC_OK);
    for (size_t i = 0; i < pc_outputs_count(outputs); ++i, ++seen) {
      const pc_output& got = *pc_outputs_get(outputs, i);
      REQUIRE(seen < expected.size());
      const pagedcore::EngineOutput& want = expected[seen];
      CHECK(got.request == id);
      CHECK(got.sample == want.sample);
      CHECK(std::vector<int32_t>(got.tokens, got.tokens + got.num_tokens) == want.tokens);
      CHECK(got.last == want.last);
      const auto same = [](const pc_position_logprobs* a, size_t count, const auto& b) {
        REQUIRE(count == b.size());
        for (size_t k = 0; k < count; ++k) {
          CHECK(a[k].chosen.token == b[k].chosen.token);
          CHECK(std::bit_cast<uint32_t>(a[k].chosen.logprob) == std::bit_cast<uint32_t>(b[k].chosen.logprob));
          REQUIRE(a[k].num_top == b[k].top.size());
          for (size_t t = 0; t < a[k].num_top; ++t) {
            CHECK(a[k].top[t].token == b[k].top[t].token);
            CHECK(a[k].top[t].rank == b[k].top[t].rank);
          }
        }
      };
      same(got.logprobs, got.num_logprobs, want.logprobs);
      same(got.prompt_logprobs, got.num_prompt_logprobs, want.prompt_logprobs);
    }
    pc_outputs_free(outputs);
    REQUIRE(pc_engine_busy(handle, &busy) == PC_OK);
  }
  CHECK(seen == expected.size());
  pc_engine_free(handle);
}

// rule: capi.nothing-written-on-failure
TEST_CASE("errors have codes and messages; nothing is written on failure") {
  const Container container;
  pc_engine* engine = nullptr;
  CHECK(pc_engine_open("/nonexistent/model", nullptr, &engine) == PC_IO);
  CHECK(std::string(pc_last_error()).find("/nonexistent/model") != std::string::npos);
  CHECK(engine == nullptr);
  CHECK(pc_engine_open(nullptr, nullptr, &engine) == PC_INVALID_ARGUMENT);
  CHECK(std::string(pc_last_error()) == "argument 'container_path' is null");
  CHECK(pc_engine_open(container.path().c_str(), nullptr, nullptr) == PC_INVALID_ARGUMENT);

  const auto refused = [&](const char* name, const char* text, pc_status status) {
    SmallEngine options;
    options.set(name, text);
    CHECK(pc_engine_open(container.path().c_str(), options, &engine) == status);
    CHECK(engine == nullptr);
    pc_record* plan = nullptr;
    CHECK(pc_plan_memory(container.path().c_str(), options, &plan) == status);
    CHECK(plan == nullptr);
  };
  refused("isa", "sse9", PC_INVALID_ARGUMENT);
  refused("block_size", "0", PC_INVALID_ARGUMENT);
  CHECK(says("block_size = 0 is out of range: it must lie in [1, 256]"));
  refused("device", "gpu", PC_INVALID_ARGUMENT);
  CHECK(says("use cpu, cuda or cuda:<index>"));
  refused("dtype", "float16", PC_UNSUPPORTED);
  {
    SmallEngine options;
    options.set("device", "cuda:1");
    CHECK(pc_engine_open(container.path().c_str(), options, &engine) == PC_UNSUPPORTED);  // no plugin is beside it
    CHECK(engine == nullptr);
  }
  {
    SmallEngine options;
    options.set("num_blocks", "none");
    options.set("kv_cache_memory", "10");
    CHECK(pc_engine_open(container.path().c_str(), options, &engine) == PC_INVALID_ARGUMENT);
    CHECK(says("kv_cache_memory"));
  }
  const Options sampling(PC_OPTIONS_SAMPLING);
  CHECK(pc_engine_open(container.path().c_str(), sampling, &engine) == PC_INVALID_ARGUMENT);
  CHECK(says("PC_OPTIONS_ENGINE"));

  const SmallEngine options;
  REQUIRE(pc_engine_open(container.path().c_str(), options, &engine) == PC_OK);
  uint64_t id = 77;
  const int32_t prompt[] = {1, 151};
  CHECK(pc_engine_submit(engine, prompt, 2, nullptr, &id) == PC_INVALID_ARGUMENT);
  CHECK(id == 77);
  CHECK(std::string(pc_last_error()).find("prompt token 1 is 151") != std::string::npos);
  CHECK(pc_engine_submit(engine, nullptr, 2, nullptr, &id) == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_submit(engine, prompt, 0, nullptr, &id) == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_submit(engine, prompt, 1, nullptr, nullptr) == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_submit(engine, prompt, SIZE_MAX / 2, nullptr, &id) == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_submit(engine, prompt, 1, options, &id) == PC_INVALID_ARGUMENT);
  CHECK(says("PC_OPTIONS_SAMPLING"));
  const Options hot(PC_OPTIONS_SAMPLING, {{"temperature", "-1"}});
  CHECK(pc_engine_submit(engine, prompt, 1, hot, &id) == PC_INVALID_ARGUMENT);
  CHECK(says("sampling parameter temperature = -1 is out of range: it must be at least 0; 0 is greedy"));
  const Options urgent(PC_OPTIONS_SAMPLING, {{"priority", "2000000"}});
  CHECK(pc_engine_submit(engine, prompt, 1, urgent, &id) == PC_INVALID_ARGUMENT);
  CHECK(says("priority"));
  pc_record* stats = nullptr;
  REQUIRE(pc_engine_stats(engine, &stats) == PC_OK);
  double value = 0.0;
  CHECK(pc_record_number(stats, "no_such", &value) == PC_INVALID_ARGUMENT);
  CHECK(says("blocks_total"));
  CHECK(pc_record_name(stats, pc_record_count(stats)) == nullptr);
  pc_record_free(stats);
  pc_record_free(nullptr);
  CHECK(pc_record_count(nullptr) == 0);
  CHECK(pc_engine_close(engine) == PC_OK);
  CHECK(pc_engine_close(engine) == PC_OK);
  CHECK(pc_engine_submit(engine, prompt, 1, nullptr, &id) == PC_ABORTED);
  pc_engine_free(engine);
  CHECK(pc_engine_close(nullptr) == PC_INVALID_ARGUMENT);
  pc_engine_free(nullptr);
  pc_outputs_free(nullptr);
  CHECK(pc_outputs_count(nullptr) == 0);
  CHECK(pc_outputs_get(nullptr, 0) == nullptr);
  CHECK(std::string(pc_status_name(PC_CORRUPT)) == "PC_CORRUPT");
}

TEST_CASE("priorities and tenants reach the scheduler") {
  const Container container;
  // One sequence at a time: who is first after the running one, who came last or who ranks higher?
  const auto order_of = [&](const char* order, bool ranked) {
    SmallEngine options;
    options.set("max_sequences", "1");
    options.set("order", order);
    pc_engine* engine = nullptr;
    REQUIRE(pc_engine_open(container.path().c_str(), options, &engine) == PC_OK);
    const int32_t prompt[] = {1, 2, 3};
    constexpr int kLong = 6;  // keep the engine busy until all are there
    uint64_t first = 0;
    for (int i = 1 - kLong; i < 4; ++i) {
      Options sampling(PC_OPTIONS_SAMPLING, {{"max_tokens", i < 1 ? "200" : "5"}, {"tenant", i == 3 ? "1" : "0"}});
      // By rank the later ones go first; by fairness the tenant of the long requests waits for the other.
      if (ranked) REQUIRE(pc_options_set_integer(sampling, "priority", i < 1 ? 1000 : i) == PC_OK);
      uint64_t id = 0;
      REQUIRE(pc_engine_submit(engine, prompt, 3, sampling, &id) == PC_OK);
      if (i == 0) first = id;
    }
    std::vector<uint64_t> ended;
    int32_t busy = 1;
    while (busy != 0) {
      pc_outputs* outputs = nullptr;
      REQUIRE(pc_engine_wait(engine, 1.0, &outputs) == PC_OK);
      for (size_t i = 0; i < pc_outputs_count(outputs); ++i) {
        if (pc_outputs_get(outputs, i)->last != 0) ended.push_back(pc_outputs_get(outputs, i)->request - first);
      }
      pc_outputs_free(outputs);
      REQUIRE(pc_engine_busy(engine, &busy) == PC_OK);
    }
    pc_engine_free(engine);
    return ended;
  };
  const auto before = [](const std::vector<uint64_t>& ended, uint64_t a, uint64_t b) {
    return std::find(ended.begin(), ended.end(), a) < std::find(ended.begin(), ended.end(), b);
  };
  CHECK(before(order_of("fcfs", true), 1, 3));
  CHECK(before(order_of("priority", true), 3, 1));
  CHECK(before(order_of("fair", false), 3, 2));
}
