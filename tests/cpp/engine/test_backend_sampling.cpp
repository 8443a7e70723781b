// Sampling by a backend whose logits the host cannot read: what it does is taken, what it leaves is done on the host,
// and the tokens are those of an engine whose host does everything.
#include <doctest/doctest.h>

#include <memory>

#include "engine/local_executor.hpp"
#include "sampling_requests.hpp"
#include "tiny_model.hpp"

using namespace sampling_requests;
using tiny::TinyModel;

namespace {

/// The CPU backend with its memory out of the host's sight. Samples through the host's functions all but every third
/// position.
class FarBackend final : public Backend {
 public:
  explicit FarBackend(bool samples) : samples_(samples) {}

  std::uint64_t done = 0, left = 0, downloaded_rows = 0;

  void sample_tokens(const Tensor& logits, std::span<const SamplingTask> tasks,
                     std::span<SamplingResult> results) override {
    if (!samples_) return Backend::sample_tokens(logits, tasks, results);
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      results[i] = {};
      const SamplingTask& t = tasks[i];
      if (t.kind == SamplingTask::Kind::draw && (t.prompt.size() + t.output.size()) % 3 == 0) {
        ++left;
        continue;
      }
      ++done;
      results[i] = sample_one({static_cast<const float*>(logits.data) + t.row * logits.stride, kVocab}, t);
    }
  }
  void download(std::span<std::byte> dst, const Tensor& src) override {
    downloaded_rows += static_cast<std::uint64_t>(src.rows);
    cpu_->download(dst, src);
  }
  const void* host_view(const Tensor&) noexcept override { return nullptr; }

  // The rest is the CPU backend's.
  std::string describe() const override { return "far"; }
  DType compute_dtype() const noexcept override { return cpu_->compute_dtype(); }
  std::unique_ptr<Buffer> allocate(std::size_t bytes) override { return cpu_->allocate(bytes); }
  void upload(const Tensor& dst, std::span<const std::byte> src) override { cpu_->upload(dst, src); }
  void synchronize() override { cpu_->synchronize(); }
  std::unique_ptr<Weight> pack(std::span<const HostTensor> parts, PackKind kind) override {
    return cpu_->pack(parts, kind);
  }
  std::size_t packed_bytes(std::int64_t n, std::int64_t k, PackKind kind) const override {
    return cpu_->packed_bytes(n, k, kind);
  }
  std::unique_ptr<KvStorage> allocate_kv(const KvShape& shape, std::uint32_t blocks) override {
    return cpu_->allocate_kv(shape, blocks);
  }
  std::size_t kv_block_bytes(const KvShape& shape) const override { return cpu_->kv_block_bytes(shape); }
  void copy_blocks(KvStorage& kv, std::span<const BlockCopy> copies) override { cpu_->copy_blocks(kv, copies); }
  void swap_out(const KvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst) override {
    cpu_->swap_out(kv, blocks, dst);
  }
  void swap_in(KvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src) override {
    cpu_->swap_in(kv, blocks, src);
  }
  std::unique_ptr<Batch> prepare(const BatchView& view, std::int32_t block_size) override {
    return cpu_->prepare(view, block_size);
  }
  void embed(const Tensor& out, const Weight& table, const Batch& batch, float scale) override {
    cpu_->embed(out, table, batch, scale);
  }
  void norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias,
            const NormParams& p) override {
    cpu_->norm(out, in, weight, bias, p);
  }
  void head_norm(const Tensor& x, std::int32_t head_dim, const Tensor& weight, const NormParams& p) override {
    cpu_->head_norm(x, head_dim, weight, p);
  }
  void matmul(const Tensor& out, const Tensor& in, const Weight& weight, const Epilogue& epilogue) override {
    cpu_->matmul(out, in, weight, epilogue);
  }
  void rope_and_cache(const Tensor& q, const Tensor& qkv, KvStorage& kv, std::int32_t layer, const Batch& batch,
                      const AttentionShape& shape, const RopeParams& rope) override {
    cpu_->rope_and_cache(q, qkv, kv, layer, batch, shape, rope);
  }
  void attention(const Tensor& out, const Tensor& q, const KvStorage& kv, std::int32_t layer, const Batch& batch,
                 const AttentionParams& p) override {
    cpu_->attention(out, q, kv, layer, batch, p);
  }
  void gather_rows(const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices) override {
    cpu_->gather_rows(out, in, indices);
  }
  void scale_softcap(const Tensor& x, float scale, float softcap) override { cpu_->scale_softcap(x, scale, softcap); }
  void host_parallel(std::int64_t count, const std::function<void(std::int64_t)>& body) override {
    cpu_->host_parallel(count, body);
  }

 private:
  static SamplingResult sample_one(std::span<const float> row, const SamplingTask& t) {
    SamplingResult result;
    result.done = true;
    if (t.kind == SamplingTask::Kind::candidates) {
      for (const auto& c : sampling::beam_candidates(row, static_cast<std::size_t>(t.num_top)))
        result.top.push_back({c.token, c.logprob, 0});
      return result;
    }
    PositionLogprobs logprobs;
    if (t.kind == SamplingTask::Kind::score) {
      logprobs = logprobs_of(row, t.token, t.num_top);
    } else {
      SamplingParams p;
      p.temperature = t.scale == 0.0f ? 0.0f : 1.0f / t.scale;  // exact: the temperatures below are powers of two
      p.top_k = t.top_k;
      p.top_p = t.top_p;
      p.min_p = t.min_p;
      p.repetition_penalty = t.repetition_penalty;
      p.presence_penalty = t.presence_penalty;
      p.frequency_penalty = t.frequency_penalty;
      p.logit_bias.assign(t.logit_bias.begin(), t.logit_bias.end());
      for (TokenId token = 0; !t.mask.empty() && token < kVocab; ++token)
        if ((t.mask[static_cast<std::size_t>(token / 32)] >> token % 32 & 1u) != 0) p.allowed_tokens.push_back(token);
      p.seed = t.seed;
      p.logprobs = t.wants_logprobs ? t.num_top : -1;
      SampleOutcome outcome = sample(row, {&p, t.prompt, t.output, t.sample});
      result.token = outcome.token;
      logprobs = std::move(outcome.logprobs);
    }
    result.chosen = logprobs.chosen;
    result.top = std::move(logprobs.top);
    return result;
  }

  bool samples_;
  std::unique_ptr<Backend> cpu_ = make_cpu_backend({1, DType::bf16, "auto"});
};

}  // namespace

TEST_CASE("a backend's tokens are taken, and what it leaves is the host's") {
  const TinyModel model(kVocab);
  EngineConfig config;
  config.num_blocks = 300;
  config.cpu.threads = 1;
  config.max_batched_tokens = 40;
  Engine engine(model.description, model.weights, config);
  const std::vector<Collected> host = run(engine, 12);
  for (const bool samples : {false, true}) {
    CAPTURE(samples);
    FarBackend backend(samples);
    Model far(model.description, model.weights, backend, config.max_batched_tokens, 8);
    const auto kv = backend.allocate_kv(far.kv_shape(16), config.num_blocks);
    auto table = std::make_unique<RequestTable>();
    auto executor = std::make_unique<LocalExecutor>(backend, far, *kv, *table, nullptr);
    EngineLoop loop(RequestLimits{kVocab, 256}, Scheduler({config.max_batched_tokens, 32, 256, 0.01}, {300, 16, true}),
                    std::move(table), std::move(executor));
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
