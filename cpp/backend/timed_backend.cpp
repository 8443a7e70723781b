#include "backend/timed_backend.hpp"

#include <new>
#include <utility>

namespace pagedcore {
namespace {

struct Extent {
  std::int64_t rows = 0, columns = 0, inner = 0;
};
Extent extent(const Tensor& t) { return {t.rows, t.cols}; }

class TimedBackend final : public Backend {
 public:
  TimedBackend(std::unique_ptr<Backend> backend, std::vector<TimedOperation>& operations)
      : backend_(std::move(backend)), own_(*backend_), operations_(operations) {}

  DType compute_dtype() const noexcept override { return own_.compute_dtype(); }
  DType kv_dtype() const noexcept override { return own_.kv_dtype(); }
  std::size_t packed_bytes(std::int64_t n, std::int64_t k, const WeightForm& form) const override {
    return own_.packed_bytes(n, k, form);
  }
  PackedSize packed_size(std::span<const HostTensor> parts, const WeightForm& form) const override {
    return own_.packed_size(parts, form);
  }
  std::size_t kv_block_bytes(const KvShape& shape) const override { return own_.kv_block_bytes(shape); }
  bool serves_mixtures() const noexcept override { return own_.serves_mixtures(); }
  bool serves_sinks() const noexcept override { return own_.serves_sinks(); }
  std::string describe() const override { return own_.describe(); }

  std::unique_ptr<Buffer> allocate(std::size_t bytes) override { return own_.allocate(bytes); }
  void upload(const Tensor& dst, std::span<const std::byte> src) override { own_.upload(dst, src); }
  void download(std::span<std::byte> dst, const Tensor& src) override { own_.download(dst, src); }
  void synchronize() override { own_.synchronize(); }
  std::optional<std::size_t> available_memory() const override { return own_.available_memory(); }
  void reserve(std::size_t bytes) override { own_.reserve(bytes); }
  std::unique_ptr<Weight> pack(std::span<const HostTensor> parts, const WeightForm& form) override {
    return own_.pack(parts, form);
  }
  std::unique_ptr<KvStorage> allocate_kv(const KvShape& shape, std::uint32_t num_blocks) override {
    return own_.allocate_kv(shape, num_blocks);
  }

  void copy_blocks(KvStorage& kv, std::span<const BlockCopy> copies) override {
    timed("copy_blocks", {std::ssize(copies)}, [&] { own_.copy_blocks(kv, copies); });
  }
  void swap_out(const KvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst) override {
    timed("swap_out", {std::ssize(blocks)}, [&] { own_.swap_out(kv, blocks, dst); });
  }
  void swap_in(KvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src) override {
    timed("swap_in", {std::ssize(blocks)}, [&] { own_.swap_in(kv, blocks, src); });
  }

  std::unique_ptr<Batch> prepare(const BatchView& view, std::int32_t block_size) override {
    std::unique_ptr<Batch> batch;
    timed("prepare", {std::ssize(view.tokens)}, [&] { batch = own_.prepare(view, block_size); });
    return batch;
  }
  void run_step(const Batch& batch, const std::function<void()>& operations) override {
    own_.run_step(batch, operations);
  }

  void embed(const Tensor& out, const Weight& table, const Batch& batch, float scale) override {
    timed("embed", extent(out), [&] { own_.embed(out, table, batch, scale); });
  }
  void embed_positions(const Tensor& out, const Weight& table, const Batch& batch, std::int32_t offset) override {
    timed("embed_positions", extent(out), [&] { own_.embed_positions(out, table, batch, offset); });
  }
  void embed_some(const Tensor& out, const Weight& table, const Batch& batch, float scale, TokenId first) override {
    timed("embed_some", extent(out), [&] { own_.embed_some(out, table, batch, scale, first); });
  }
  void add(const Tensor& x, const Tensor& y, float scale) override {
    timed("add", extent(x), [&] { own_.add(x, y, scale); });
  }
  void convert(const Tensor& out, const Tensor& in) override {
    timed("convert", extent(out), [&] { own_.convert(out, in); });
  }
  void norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias,
            const NormParams& p) override {
    timed("norm", extent(out), [&] { own_.norm(out, in, weight, bias, p); });
  }
  void head_norm(const Tensor& x, std::int32_t head_dim, const Tensor& weight, const Tensor* bias,
                 const NormParams& p) override {
    timed("head_norm", extent(x), [&] { own_.head_norm(x, head_dim, weight, bias, p); });
  }
  void matmul(const Tensor& out, const Tensor& in, const Weight& weight, const Epilogue& epilogue) override {
    timed("matmul", {out.rows, out.cols, in.cols}, [&] { own_.matmul(out, in, weight, epilogue); });
  }
  void route(const Routing& out, const Tensor& logits, const RouterParams& p) override {
    timed("route", extent(logits), [&] { own_.route(out, logits, p); });
  }
  void mixture(const Tensor& out, const Tensor& in, const Routing& routing, const Mixture& experts) override {
    timed("mixture", {out.rows, out.cols, in.cols}, [&] { own_.mixture(out, in, routing, experts); });
  }
  void rope_and_cache(const Tensor& q, const Tensor& qkv, KvStorage& kv, std::int32_t layer, const Batch& batch,
                      const AttentionShape& shape, const RopeParams& rope) override {
    timed("rope_and_cache", extent(qkv), [&] { own_.rope_and_cache(q, qkv, kv, layer, batch, shape, rope); });
  }
  void attention(const Tensor& out, const Tensor& q, const KvStorage& kv, std::int32_t layer, const Batch& batch,
                 const AttentionParams& p) override {
    timed("attention", extent(out), [&] { own_.attention(out, q, kv, layer, batch, p); });
  }
  void gather_rows(const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices) override {
    timed("gather_rows", extent(out), [&] { own_.gather_rows(out, in, indices); });
  }
  void combine(const Tensor& out, const PartialSums& sums, const Epilogue& epilogue) override {
    timed("combine", extent(out), [&] { own_.combine(out, sums, epilogue); });
  }
  void scale_softcap(const Tensor& x, float scale, float softcap) override {
    timed("scale_softcap", extent(x), [&] { own_.scale_softcap(x, scale, softcap); });
  }
  void sample_tokens(const Tensor& logits, std::span<const SamplingTask> tasks,
                     std::span<SamplingResult> results) override {
    timed("sample_tokens", {std::ssize(tasks)}, [&] { own_.sample_tokens(logits, tasks, results); });
  }
  void host_parallel(std::int64_t count, const std::function<void(std::int64_t)>& body) override {
    timed("host_parallel", {count}, [&] { own_.host_parallel(count, body); });
  }
  const void* host_view(const Tensor& t) noexcept override { return own_.host_view(t); }

 private:
  template <class Act>
  void timed(const char* name, const Extent& extent, const Act& act) {
    const auto begin = std::chrono::steady_clock::now();
    act();
    try {
      operations_.push_back({name, extent.rows, extent.columns, extent.inner, begin, std::chrono::steady_clock::now()});
    } catch (const std::bad_alloc&) {
    }
  }

  const std::unique_ptr<Backend> backend_;
  Backend& own_;
  std::vector<TimedOperation>& operations_;
};

}  // namespace

std::unique_ptr<Backend> make_timed(std::unique_ptr<Backend> backend, std::vector<TimedOperation>& operations) {
  return std::make_unique<TimedBackend>(std::move(backend), operations);
}

}  // namespace pagedcore
