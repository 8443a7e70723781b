#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "engine/memory_plan.hpp"
#include "pagedcore/error.hpp"
#include "tiny_model.hpp"

using namespace pagedcore;
using tiny::TinyModel;

namespace {

std::string refusal(const std::function<void(EngineConfig&, ModelDescription&)>& change) {
  EngineConfig config;
  ModelDescription model = TinyModel().description;
  change(config, model);
  try {
    plan_memory(model, config);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return {};
}

}  // namespace

// rule: engine.memory-is-arithmetic
TEST_CASE("the plan is arithmetic") {
  const TinyModel model;
  EngineConfig config;
  config.cpu.dtype = DType::f32;
  const MemoryPlan plan = plan_memory(model.description, config);
  // K and V of 16 tokens, 2 layers, 2 heads of 16 floats.
  CHECK(plan.kv_block >= 2u * 16 * 2 * 2 * 16 * sizeof(float));
  CHECK(plan.block_size == 16);
  CHECK(plan.max_context == 256);
  CHECK(plan.num_blocks == 256u * (256 / 16));  // max_sequences full contexts: far below 1 GiB
  CHECK(plan.kv_cache() == plan.kv_block * plan.num_blocks);
  CHECK(plan.total() == plan.weights + plan.activations + plan.kv_cache() + plan.requests);
  CHECK(plan.weights >= 4u * (2 * 151 * 64));

  config.kv.num_blocks = 5;
  CHECK(plan_memory(model.description, config).num_blocks == 5);
  CHECK(plan_memory(model.description, config).max_context == 80);  // all that five blocks hold
  config.kv.num_blocks = 0;
  config.kv.kv_cache_memory = plan.kv_block * 7 + plan.kv_block / 2;
  CHECK(plan_memory(model.description, config).num_blocks == 7);
  config.scheduler.max_context = 33;
  CHECK(plan_memory(model.description, config).max_context == 33);
}

TEST_CASE("without a budget the cache takes at most half of the available memory") {
  const TinyModel model;
  const auto backend = make_cpu_backend({.threads = 1, .dtype = DType::f32, .isa = "auto"});
  EngineConfig config;
  const std::size_t block = plan_memory(model.description, config, *backend, std::size_t{1} << 40).kv_block;
  CHECK(plan_memory(model.description, config, *backend, block * 21).num_blocks == 10);
  CHECK_THROWS_AS(plan_memory(model.description, config, *backend, block), InvalidArgument);
  config.scheduler.max_sequences = 1 << 20;
  CHECK(plan_memory(model.description, config, *backend, std::size_t{1} << 40).num_blocks ==
        (std::size_t{1} << 30) / block);
}

// rule: engine.memory-is-arithmetic
TEST_CASE("budgets that cannot work are refused with the arithmetic") {
  using C = EngineConfig;
  using M = ModelDescription;
  CHECK(refusal([](C&, M&) {}).empty());
  const std::string small = refusal([](C& c, M&) { c.kv.kv_cache_memory = 100; });
  CHECK(small.find("kv_cache_memory = 100 bytes holds no block") != std::string::npos);
  CHECK(refusal([](C& c, M&) { c.kv.block_size = 1, c.kv.num_blocks = 1; }).find("cannot hold one prompt token") !=
        std::string::npos);
  CHECK(refusal([](C& c, M&) { c.scheduler.max_context = 1; }).find("cannot hold one prompt token") !=
        std::string::npos);
  CHECK(refusal([](C& c, M&) { c.scheduler.max_context = 257; }).find("max_context = 257 exceeds the 256") !=
        std::string::npos);
  CHECK(refusal([](C& c, M&) { c.kv.block_size = 0; }).find("block_size = 0") != std::string::npos);
  CHECK(refusal([](C& c, M&) { c.kv.block_size = 257; }).find("block_size = 257") != std::string::npos);
  CHECK(refusal([](C& c, M&) {
          c.scheduler.max_batched_tokens = (1 << 20) + 1;
        }).find("max_batched_tokens = 1048577") != std::string::npos);
  CHECK(refusal([](C& c, M&) { c.scheduler.max_sequences = 0; }).find("max_sequences = 0") != std::string::npos);
  CHECK(refusal([](C& c, M&) { c.kv.num_blocks = 0xffffffffu; }).find("num_blocks") != std::string::npos);
  CHECK(refusal([](C& c, M&) { c.scheduler.watermark = 1.5; }).find("watermark") != std::string::npos);
  CHECK_FALSE(refusal([](C&, M& m) { m.attention.num_kv_heads = 3; }).empty());
}
