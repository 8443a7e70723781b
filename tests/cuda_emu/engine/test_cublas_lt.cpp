// The engine with products by (a fake) cuBLASLt: the tokens of the CPU, though no longer the same bits in every batch.
#include "../cublas_lt/fake.hpp"
#include "harness.hpp"

using namespace cuda_test;

namespace {

/// Of the plugin, which has a fake runtime of its own.
const cuda_emu::Hooks* plugin_runtime() {
  static void* plugin = dlopen(CUDA_EMU_PLUGIN, RTLD_NOW | RTLD_LOCAL);
  REQUIRE(plugin != nullptr);
  auto* find = reinterpret_cast<const cuda_emu::Hooks* (*)()>(dlsym(plugin, "cuda_emu_hooks"));
  REQUIRE((find != nullptr));
  return find();
}

}  // namespace

TEST_CASE("with cuBLASLt: greedy tokens are those of the CPU, up to the first that two logits contest") {
  const FakeScope fake(FAKE_CUBLAS_LT, plugin_runtime());
  for (const bool tied : {false, true}) {
    CAPTURE(tied);
    TinyModel model(151, 2, 64);
    model.description.tied_embeddings = tied;
    EngineConfig config = config_for("cuda");
    config.cuda.cublas_lt = true;
    config.scheduler.max_batched_tokens = 48;  // prefills of several sizes
    fake->calls.clear();
    const auto cuda = generate_greedily(model, config);
    // The head, and of either layer q, k, v and the gated pair: products with leaves of k stay with our own kernels.
    // One of the 12 tokens a step, at most.
    CHECK(fake->calls.size() % (1 + 2 * 2) == 0);
    CHECK(fake->calls.size() >= 12 * (1 + 2 * 2));
    check_like_cpu(cuda, generate_greedily(model, config_for("cpu")));
  }
}

TEST_CASE("with cuBLASLt: a plan counts its memory, and a library that is missing is the constructor's error") {
  const TinyModel model(151, 2, 64);
  EngineConfig config = config_for("cuda");
  const MemoryPlan own = plan_memory(model.description, config);
  config.cuda.cublas_lt = true;
  {
    const FakeScope fake(FAKE_CUBLAS_LT, plugin_runtime());
    const MemoryPlan plan = plan_memory(model.description, config);
    CHECK(plan.weights < own.weights);  // no tiles to fill up
    config.kv.num_blocks = 1000000;
    CHECK_THROWS_WITH_AS(Engine(model.description, model.weights, config), doctest::Contains("a workspace of 8388608"),
                         OutOfMemory);
  }
  setenv("PAGEDCORE_CUBLASLT", "/nowhere", 1);
  CHECK_THROWS_WITH_AS(Engine(model.description, model.weights, config),
                       doctest::Contains("cuBLASLt cannot be opened (/nowhere: cannot open shared object file"),
                       Unsupported);
  unsetenv("PAGEDCORE_CUBLASLT");
}
