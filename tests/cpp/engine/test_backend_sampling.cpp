// Sampling by a backend whose logits the host cannot read: what it does is taken, what it leaves is done on the host,
// and the tokens are those of an engine whose host does everything.
#include <doctest/doctest.h>

#include <memory>

#include "backend/forwarding_backend.hpp"
#include "engine/local_executor.hpp"
#include "sampling_requests.hpp"
#include "selftest/host_sampler.hpp"
#include "tiny_model.hpp"

using namespace sampling_requests;
using tiny::TinyModel;

namespace {

/// The CPU backend with its memory out of the host's sight. Samples through the host's functions all but every third
/// position.
class FarBackend final : public ForwardingBackend {
 public:
  FarBackend(Backend& cpu, bool samples) : ForwardingBackend(cpu), samples_(samples) {}

  std::uint64_t done = 0, left = 0, downloaded_rows = 0;

  void sample_tokens(const Tensor& logits, std::span<const SamplingTask> tasks,
                     std::span<SamplingResult> results) override {
    if (!samples_) return Backend::sample_tokens(logits, tasks, results);
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      results[i] = {};
      const SamplingTask& t = tasks[i];
      if (t.kind == SamplingTask::Kind::draw && (t.context.prompt.size() + t.context.output.size()) % 3 == 0) {
        ++left;
        continue;
      }
      ++done;
      const std::span row(static_cast<const float*>(logits.data) + t.row * logits.stride, std::size_t{kVocab});
      results[i] = selftest::sampled_on_host(row, t);
    }
  }
  void download(std::span<std::byte> dst, const Tensor& src) override {
    downloaded_rows += static_cast<std::uint64_t>(src.rows);
    inner_.download(dst, src);
  }
  const void* host_view(const Tensor&) noexcept override { return nullptr; }

 private:
  bool samples_;
};

}  // namespace

// rule: backend.sampling-may-be-declined
TEST_CASE("a backend's tokens are taken, and what it leaves is the host's") {
  const TinyModel model(kVocab);
  EngineConfig config;
  config.kv.num_blocks = 300;
  config.cpu.threads = 1;
  config.scheduler.max_batched_tokens = 40;
  Engine engine(model.description, model.weights, config);
  const std::vector<Collected> host = run(engine, 12);
  for (const bool samples : {false, true}) {
    CAPTURE(samples);
    const auto cpu = make_cpu_backend({1, DType::bf16, "auto"});
    FarBackend backend(*cpu, samples);
    Model far(model.description, model.weights, backend, config.scheduler.max_batched_tokens, 8);
    const auto kv = backend.allocate_kv(far.kv_shape(16), config.kv.num_blocks);
    auto table = std::make_unique<RequestTable>();
    auto executor = std::make_unique<LocalExecutor>(backend, far, *kv, *table, nullptr);
    EngineLoop loop(RequestLimits{kVocab, 256},
                    Scheduler({config.scheduler.max_batched_tokens, 32, 256, 0.01}, {300, 16, true}), std::move(table),
                    std::move(executor));
    check_same(run(loop, 12), host);
    loop.close();
    if (samples) {
      CHECK(backend.done > 100);
      CHECK(backend.left > 20);
      CHECK(backend.downloaded_rows <= backend.left);  // no other row; samples of one prompt share theirs
    } else {
      CHECK(backend.downloaded_rows > 100);
    }
  }
}

namespace {

/// Allows every third token, which ones depends on how many there were.
std::shared_ptr<const Constraint> thirds() {
  ConstraintTable table;
  table.compute_mask = [](void* matcher, std::uint32_t* mask, std::size_t) -> std::int32_t {
    for (std::int32_t t = *static_cast<std::int32_t*>(matcher) % 3; t < kVocab; t += 3) mask[t / 32] |= 1u << t % 32;
    return 0;
  };
  table.consume_token = [](void* matcher, std::uint32_t token) -> std::int32_t {
    std::int32_t& count = *static_cast<std::int32_t*>(matcher);
    return static_cast<std::int32_t>(token) % 3 == count++ % 3 ? 0 : -1;
  };
  table.clone = [](const void* matcher) -> void* {
    return new std::int32_t(*static_cast<const std::int32_t*>(matcher));
  };
  table.free = [](void* matcher) { delete static_cast<std::int32_t*>(matcher); };
  return std::make_shared<Constraint>(table, new std::int32_t(0));
}

/// Samples and hypotheses of constrained requests.
template <class AnyEngine>
std::vector<std::vector<TokenId>> run_constrained(AnyEngine& engine) {
  std::vector<EngineRequest> list = requests(7);
  std::vector<RequestId> ids;
  for (const std::size_t i : {0u, 1u, 2u, 7u}) {  // greedily, by temperature, several samples, beams
    list[i].constraint = thirds();
    ids.push_back(engine.submit(list[i]));
  }
  std::vector<std::vector<TokenId>> tokens;
  for (const auto& [id, sample] : drain(engine).samples) {
    CHECK(sample.error == "");
    tokens.push_back(sample.tokens);
  }
  return tokens;
}

}  // namespace

TEST_CASE("a constraint's mask goes to the backend that samples, and beams that have one to the host") {
  const TinyModel model(kVocab);
  EngineConfig config;
  config.kv.num_blocks = 300;
  config.cpu.threads = 1;
  config.scheduler.max_batched_tokens = 40;
  Engine engine(model.description, model.weights, config);
  const auto host = run_constrained(engine);
  REQUIRE(host.size() == 1 + 1 + 3 + 3);
  for (const auto& tokens : host) {
    REQUIRE(tokens.size() == 7);
    for (std::size_t i = 0; i < tokens.size(); ++i) CHECK(tokens[i] % 3 == static_cast<TokenId>(i) % 3);
  }
  const auto cpu = make_cpu_backend({1, DType::bf16, "auto"});
  FarBackend backend(*cpu, true);
  Model far(model.description, model.weights, backend, config.scheduler.max_batched_tokens, 8);
  const auto kv = backend.allocate_kv(far.kv_shape(16), config.kv.num_blocks);
  auto table = std::make_unique<RequestTable>();
  auto executor = std::make_unique<LocalExecutor>(backend, far, *kv, *table, nullptr);
  EngineLoop loop(RequestLimits{kVocab, 256},
                  Scheduler({config.scheduler.max_batched_tokens, 32, 256, 0.01}, {300, 16, true}), std::move(table),
                  std::move(executor));
  CHECK(run_constrained(loop) == host);
  loop.close();
  CHECK(backend.done > 10);
}
