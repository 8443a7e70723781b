#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "../engine/tiny_model.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/pagedcore.h"

extern "C" int c_program(const char* container_path);  // 0, or the line of the first check that failed

namespace {

/// A container with a small random model, gone with the object.
class Container {
 public:
  Container() : path_(std::filesystem::temp_directory_path() / ("pagedcore-capi-" + std::to_string(::getpid()))) {
    pagedcore::save_model(path_.string(), model.description, model.weights, {});
  }
  ~Container() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }

  tiny::TinyModel model;

 private:
  std::filesystem::path path_;
};

pc_engine_params small() {
  pc_engine_params params = pc_engine_params_default();
  params.num_blocks = 100;
  params.threads = 1;
  params.dtype = "f32";
  return params;
}

}  // namespace

TEST_CASE("a program in C99 opens, submits, collects and closes") {
  const Container container;
  CHECK(c_program(container.path().c_str()) == 0);
}

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

  const pc_engine_params params = small();
  pc_engine* handle = nullptr;
  REQUIRE(pc_engine_open(container.path().c_str(), &params, &handle) == PC_OK);
  const pc_token_bias bias = {9, 2.5f};
  const int32_t banned = 3, prompt[] = {5, 6, 7};
  pc_sampling_params sampling = pc_sampling_params_default();
  sampling.n = 2;
  sampling.temperature = 0.8f;
  sampling.top_p = 0.95f;
  sampling.logprobs = 2;
  sampling.prompt_logprobs = 1;
  sampling.seed = 11;
  sampling.logit_bias = &bias;
  sampling.num_logit_bias = 1;
  sampling.banned_tokens = &banned;
  sampling.num_banned_tokens = 1;
  uint64_t id = 0;
  REQUIRE(pc_engine_submit(handle, prompt, 3, &sampling, &id) == PC_OK);
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
          CHECK(std::memcmp(&a[k].chosen.logprob, &b[k].chosen.logprob, sizeof(float)) == 0);
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

TEST_CASE("errors have codes and messages; nothing is written on failure") {
  const Container container;
  pc_engine* engine = nullptr;
  CHECK(pc_engine_open("/nonexistent/model", nullptr, &engine) == PC_IO);
  CHECK(std::string(pc_last_error()).find("/nonexistent/model") != std::string::npos);
  CHECK(engine == nullptr);
  CHECK(pc_engine_open(nullptr, nullptr, &engine) == PC_INVALID_ARGUMENT);
  CHECK(std::string(pc_last_error()) == "argument 'container_path' is null");
  CHECK(pc_engine_open(container.path().c_str(), nullptr, nullptr) == PC_INVALID_ARGUMENT);

  pc_engine_params params = small();
  params.struct_size = 3;
  CHECK(pc_engine_open(container.path().c_str(), &params, &engine) == PC_INVALID_ARGUMENT);
  params = small();
  params.isa = "sse9";
  CHECK(pc_engine_open(container.path().c_str(), &params, &engine) == PC_INVALID_ARGUMENT);
  params = small();
  params.dtype = "f17";
  CHECK(pc_engine_open(container.path().c_str(), &params, &engine) == PC_UNSUPPORTED);
  params = small();
  params.num_blocks = 0;
  params.kv_cache_bytes = 10;
  pc_memory_plan plan = {};
  CHECK(pc_plan_memory(container.path().c_str(), &params, &plan) == PC_INVALID_ARGUMENT);
  CHECK(plan.total == 0);

  params = small();
  REQUIRE(pc_engine_open(container.path().c_str(), &params, &engine) == PC_OK);
  uint64_t id = 77;
  const int32_t prompt[] = {1, 151};
  CHECK(pc_engine_submit(engine, prompt, 2, nullptr, &id) == PC_INVALID_ARGUMENT);
  CHECK(id == 77);
  CHECK(std::string(pc_last_error()).find("prompt token 1 is 151") != std::string::npos);
  CHECK(pc_engine_submit(engine, nullptr, 2, nullptr, &id) == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_submit(engine, prompt, 0, nullptr, &id) == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_submit(engine, prompt, 1, nullptr, nullptr) == PC_INVALID_ARGUMENT);
  pc_sampling_params sampling = pc_sampling_params_default();
  sampling.num_banned_tokens = 1;  // of a null array
  CHECK(pc_engine_submit(engine, prompt, 1, &sampling, &id) == PC_INVALID_ARGUMENT);
  sampling = pc_sampling_params_default();
  sampling.struct_size = 0;
  CHECK(pc_engine_submit(engine, prompt, 1, &sampling, &id) == PC_INVALID_ARGUMENT);
  double value = 0.0;
  CHECK(pc_engine_stat(engine, "no_such", &value) == PC_INVALID_ARGUMENT);
  CHECK(std::string(pc_last_error()).find("blocks_total") != std::string::npos);
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

TEST_CASE("device and compute type, as in C++") {
  const Container container;
  pc_engine* engine = nullptr;
  const auto refused = [&](auto change, pc_status status, const char* text) {
    pc_engine_params params = small();
    change(params);
    CHECK(pc_engine_open(container.path().c_str(), &params, &engine) == status);
    CHECK(std::string(pc_last_error()).find(text) != std::string::npos);
    CHECK(engine == nullptr);
    pc_memory_plan plan = {};
    CHECK(pc_plan_memory(container.path().c_str(), &params, &plan) == status);
    CHECK(plan.total == 0);
  };
  refused([](pc_engine_params& p) { p.device = "gpu"; }, PC_INVALID_ARGUMENT, "use cpu, cuda or cuda:<index>");
  // The test program has no plugin beside it.
  refused([](pc_engine_params& p) { p.device = "cuda:1", p.dtype = "f16"; }, PC_UNSUPPORTED,
          "the CUDA backend is not available");
  refused([](pc_engine_params& p) { p.dtype = "f16"; }, PC_INVALID_ARGUMENT, "computes in f32 or bf16, not in f16");
  refused([](pc_engine_params& p) { p.order = "lifo"; }, PC_INVALID_ARGUMENT,
          "order = 'lifo' is not one of fcfs, priority, fair");
  refused([](pc_engine_params& p) { p.admission = ""; }, PC_INVALID_ARGUMENT,
          "known, watermark, never_evict, adaptive");
  refused([](pc_engine_params& p) { p.victim = "first"; }, PC_INVALID_ARGUMENT, "cheapest, last_arrival");
  pc_engine_params params = small();
  params.device = params.dtype = params.isa = params.order = params.admission = params.victim =
      nullptr;  // the defaults
  REQUIRE(pc_engine_open(container.path().c_str(), &params, &engine) == PC_OK);
  pc_engine_free(engine);
}

TEST_CASE("priorities and tenants reach the scheduler") {
  const Container container;
  // One sequence at a time: who is first after the running one, who came last or who ranks higher?
  const auto order_of = [&](const char* order, bool ranked) {
    pc_engine_params params = small();
    params.max_sequences = 1;
    params.order = order;
    pc_engine* engine = nullptr;
    REQUIRE(pc_engine_open(container.path().c_str(), &params, &engine) == PC_OK);
    const int32_t prompt[] = {1, 2, 3};
    constexpr int kLong = 6;  // keep the engine busy until all are there
    uint64_t first = 0;
    for (int i = 1 - kLong; i < 4; ++i) {
      pc_sampling_params sampling = pc_sampling_params_default();
      sampling.max_tokens = i < 1 ? 200 : 5;
      // By rank the later ones go first; by fairness the tenant of the long requests waits for the other.
      if (ranked) sampling.priority = i < 1 ? 1000 : i;
      sampling.tenant = i == 3 ? 1 : 0;
      uint64_t id = 0;
      REQUIRE(pc_engine_submit(engine, prompt, 3, &sampling, &id) == PC_OK);
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

  pc_engine* engine = nullptr;
  const pc_engine_params params = small();
  REQUIRE(pc_engine_open(container.path().c_str(), &params, &engine) == PC_OK);
  pc_sampling_params sampling = pc_sampling_params_default();
  sampling.priority = 2000000;
  const int32_t prompt[] = {1};
  uint64_t id = 0;
  CHECK(pc_engine_submit(engine, prompt, 1, &sampling, &id) == PC_INVALID_ARGUMENT);
  CHECK(std::string(pc_last_error()).find("priority") != std::string::npos);
  pc_engine_free(engine);
}
