// Engines whose ranks share the model: the bits of one, in every disturbance, and what becomes of a rank that fails.
#include <doctest/doctest.h>

#include <memory>
#include <new>

#include "backend/forwarding_backend.hpp"
#include "engine/engine_loop.hpp"
#include "engine/local_executor.hpp"
#include "engine/thread_ranks.hpp"
#include "pagedcore/devices.hpp"
#include "pagedcore/error.hpp"
#include "same_bits.hpp"
#include "sampling_requests.hpp"

using tiny::TinyModel;
using namespace pagedcore;

namespace {

constexpr std::uint32_t kTokens = 16;

EngineConfig config_for(DType dtype, std::int32_t ranks, int threads = 0) {
  EngineConfig config;
  config.cpu.dtype = dtype;
  config.cpu.threads = threads > 0 ? threads : ranks;
  config.tensor_parallel = ranks;
  config.kv.num_blocks = 2000;
  return config;
}

std::vector<EngineRequest> observed() {
  std::vector<EngineRequest> list;
  for (const std::size_t prompt : {15u, 16u, 40u, 77u})
    list.push_back(same_bits::request(prompt, static_cast<std::uint32_t>(prompt), kTokens, 3));
  list[1].sampling.temperature = 0.7f;
  list[2].sampling.n = 3;
  list[3].sampling.repetition_penalty = 1.3f;
  return list;
}

}  // namespace

// rule: engine.ranks-same-bits
TEST_CASE("two, three and four ranks give the bits of one, in every disturbance") {
  const auto list = observed();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const TinyModel model(151, 2, 16);
    const same_bits::Bits alone = same_bits::run_alone(model, config_for(dtype, 1), list);
    for (const std::int32_t ranks : {2, 3, 4}) {
      CAPTURE(info(dtype).name);
      CAPTURE(ranks);
      const auto same = [&](const EngineConfig& config, const same_bits::Disturbance& d) {
        same_bits::check_same(model, config, list, alone, d);
      };
      EngineConfig config = config_for(dtype, ranks);
      same(config, {"together", 0, 0});
      config.scheduler.max_batched_tokens = 7;
      same(config, {"chunked prefill among strangers", 16, 0});
      same(config, {"preempted", 4, 3});
      config = config_for(dtype, ranks);
      config.swap.swap_space = 4 << 20;
      same(config, {"swapped", 4, 2, PreemptionMode::swap});
      same(config_for(dtype, ranks, ranks + 1), {"uneven threads", 4, 0});
      config = config_for(dtype, ranks);
      config.kv.num_blocks = 20;
      same(config, {"few blocks", 4, 0});
      Engine engine(model.description, model.weights, config_for(dtype, ranks));
      same_bits::check_same_when_cached(engine, list, alone);
    }
  }
}

TEST_CASE("all that sampling offers, beam search among it, is the same with ranks") {
  const TinyModel model(sampling_requests::kVocab);
  Engine one(model.description, model.weights, config_for(DType::bf16, 1));
  const auto want = sampling_requests::run(one, 12);
  Engine three(model.description, model.weights, config_for(DType::bf16, 3));
  sampling_requests::check_same(sampling_requests::run(three, 12), want);
}

TEST_CASE("the plan of ranks adds up, each has its KV heads, and statistics count them") {
  TinyModel model(151, 2, 16);
  const MemoryPlan one = plan_memory(model.description, config_for(DType::f32, 1));
  const MemoryPlan plan = plan_memory(model.description, config_for(DType::f32, 3));
  REQUIRE(plan.rank_weights.size() == 3);
  CHECK(plan.rank_weights[0] + plan.rank_weights[1] + plan.rank_weights[2] == plan.weights);
  CHECK(plan.rank_activations[0] + plan.rank_activations[1] + plan.rank_activations[2] == plan.activations);
  // 4 query heads over 2 KV heads in 3 ranks: 1, 1 and 2 of them, of 1 KV head each.
  CHECK(plan.rank_kv_block == std::vector<std::uint64_t>(3, one.kv_block / 2));
  CHECK(plan.kv_block == one.kv_block / 2 * 3);
  Engine engine(model.description, model.weights, config_for(DType::f32, 3));
  CHECK(engine.stats().at("ranks") == 3);
  CHECK(engine.memory_plan().weights == plan.weights);
  CHECK(engine.describe().find("3 ranks") != std::string::npos);
}

TEST_CASE("ranks that a model or a machine has no room for are refused by the numbers") {
  const TinyModel model(151, 2, 16);
  const auto make = [&](std::int32_t ranks, int threads) {
    EngineConfig config = config_for(DType::f32, 1, threads);
    config.tensor_parallel = ranks;
    Engine(model.description, model.weights, config);
  };
  CHECK_THROWS_WITH_AS(make(5, 8),
                       "tensor_parallel = 5 exceeds the 4 query heads of the model, of which each rank has one at "
                       "least; use at most 4",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(make(3, 2),
                       "tensor_parallel = 3 exceeds threads = 2: a rank has one thread at least; use fewer ranks, or "
                       "set threads",
                       InvalidArgument);
  CHECK_THROWS_AS(make(0, 2), InvalidArgument);
  CHECK_THROWS_AS(make(-1, 2), InvalidArgument);
  EngineConfig config = config_for(DType::bf16, 1);
  config.device = "cuda";
  config.tensor_parallel = 2;
  CHECK_THROWS_AS(validate(config), Unsupported);
}

namespace {

/// Throws at the given call of matmul, counted over all steps.
class FailingBackend final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  std::uint64_t calls = 0, fails_at = 0;
  bool for_memory = true;
  void matmul(const Tensor& out, const Tensor& in, const Weight& weight, const Epilogue& epilogue) override {
    if (++calls == fails_at && for_memory) throw std::bad_alloc();
    if (calls == fails_at) throw Corrupt("a rank's arithmetic has failed");
    inner_.matmul(out, in, weight, epilogue);
  }
};

/// An engine of three ranks, of which one fails.
struct FailingEngine {
  FailingEngine(const TinyModel& tiny, std::size_t rank, std::uint64_t call, bool for_memory) {
    std::vector<RankParts> parts;
    for (std::int32_t r = 0; r < 3; ++r) {
      cpu.push_back(make_cpu_backend({1, DType::f32}));
      backends.push_back(std::make_unique<FailingBackend>(*cpu.back()));
      models.push_back(
          std::make_unique<Model>(tiny.description, tiny.weights, *backends.back(), 64, 8, ModelRank{r, 3}));
      kv.push_back(backends.back()->allocate_kv(models.back()->kv_shape(16), 300));
      parts.push_back({*backends.back(), *models.back(), *kv.back(), nullptr});
    }
    backends[rank]->fails_at = call;
    backends[rank]->for_memory = for_memory;
    others = std::make_unique<ThreadRanks>(parts);
    auto table = std::make_unique<RequestTable>();
    auto executor = std::make_unique<LocalExecutor>(*backends[0], *models[0], *kv[0], *table, nullptr, others.get());
    loop = std::make_unique<EngineLoop>(RequestLimits{151, 256}, Scheduler({64, 32, 256, 0.01}, {300, 16, true}),
                                        std::move(table), std::move(executor));
  }
  ~FailingEngine() { loop->close(); }

  std::vector<std::unique_ptr<Backend>> cpu;
  std::vector<std::unique_ptr<FailingBackend>> backends;
  std::vector<std::unique_ptr<Model>> models;
  std::vector<std::unique_ptr<KvStorage>> kv;
  std::unique_ptr<ThreadRanks> others;
  std::unique_ptr<EngineLoop> loop;
};

}  // namespace

// rule: engine.rank-fails-as-one
TEST_CASE("a rank that lacks memory costs at most a request, at every point of a step, and the others go on") {
  const TinyModel model(151, 2, 16);
  const std::vector<EngineRequest> list{same_bits::request(20, 1, 6, 0), same_bits::request(33, 2, 6, 0)};
  EngineConfig plain = config_for(DType::f32, 1);
  plain.scheduler.max_batched_tokens = 64;
  Engine one(model.description, model.weights, plain);
  const auto want = same_bits::run(one, list);
  for (const std::size_t rank : {0u, 1u, 2u})
    for (const std::uint64_t call : {1u, 2u, 4u, 9u, 12u, 40u}) {
      CAPTURE(rank);
      CAPTURE(call);
      FailingEngine engine(model, rank, call, true);
      std::vector<RequestId> ids;
      for (const EngineRequest& r : list) ids.push_back(engine.loop->submit(r));
      const fake::Collection all = fake::drain(*engine.loop);
      std::size_t failed = 0;
      for (std::size_t i = 0; i < ids.size(); ++i) {
        const fake::Collected& c = all.at(ids[i], 0);
        failed += c.error.empty() ? 0 : 1;
        if (c.error.empty()) CHECK(same_bits::bits(c) == want[i]);
      }
      CHECK(failed <= 1);
      CHECK(engine.backends[rank]->calls > call);
      const RequestId after = engine.loop->submit(list[0]);
      CHECK(same_bits::bits(fake::drain(*engine.loop).at(after, 0)) == want[0]);
    }
}

TEST_CASE("a rank that fails for another reason fails the engine, with its own words, and nothing hangs") {
  const TinyModel model(151, 2, 16);
  for (const std::size_t rank : {0u, 1u, 2u}) {
    CAPTURE(rank);
    FailingEngine engine(model, rank, 7, false);
    engine.loop->submit(same_bits::request(20, 1, 6, 0));
    CHECK_THROWS_WITH_AS(fake::drain(*engine.loop),
                         "the engine has failed and serves no more: a rank's arithmetic has failed", Aborted);
  }
}
