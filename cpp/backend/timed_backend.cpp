#include "backend/timed_backend.hpp"

#include <new>
#include <utility>

#include "backend/forwarding_backend.hpp"

namespace pagedcore {
namespace {

struct Extent {
  std::int64_t rows = 0, columns = 0, inner = 0;
};
Extent extent(const Tensor& t) { return {t.rows, t.cols}; }

class TimedBackend final : public ForwardingBackend {
 public:
  TimedBackend(std::unique_ptr<Backend> backend, std::vector<TimedOperation>& operations)
      : ForwardingBackend(*backend), backend_(std::move(backend)), operations_(operations) {}

  void copy_blocks(KvStorage& kv, std::span<const BlockCopy> copies) override {
    timed("copy_blocks", {std::ssize(copies)}, [&] { inner_.copy_blocks(kv, copies); });
  }
  void swap_out(const KvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst) override {
    timed("swap_out", {std::ssize(blocks)}, [&] { inner_.swap_out(kv, blocks, dst); });
  }
  void swap_in(KvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src) override {
    timed("swap_in", {std::ssize(blocks)}, [&] { inner_.swap_in(kv, blocks, src); });
  }

  std::unique_ptr<Batch> prepare(const BatchView& view, std::int32_t block_size) override {
    std::unique_ptr<Batch> batch;
    timed("prepare", {std::ssize(view.tokens)}, [&] { batch = inner_.prepare(view, block_size); });
    return batch;
  }

  void embed(const Tensor& out, const Weight& table, const Batch& batch, float scale) override {
    timed("embed", extent(out), [&] { inner_.embed(out, table, batch, scale); });
  }
  void embed_positions(const Tensor& out, const Weight& table, const Batch& batch, std::int32_t offset) override {
    timed("embed_positions", extent(out), [&] { inner_.embed_positions(out, table, batch, offset); });
  }
  void embed_some(const Tensor& out, const Weight& table, const Batch& batch, float scale, TokenId first) override {
    timed("embed_some", extent(out), [&] { inner_.embed_some(out, table, batch, scale, first); });
  }
  void add(const Tensor& x, const Tensor& y, float scale) override {
    timed("add", extent(x), [&] { inner_.add(x, y, scale); });
  }
  void convert(const Tensor& out, const Tensor& in) override {
    timed("convert", extent(out), [&] { inner_.convert(out, in); });
  }
  void norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias,
            const NormParams& p) override {
    timed("norm", extent(out), [&] { inner_.norm(out, in, weight, bias, p); });
  }
  void head_norm(const Tensor& x, std::int32_t head_dim, const Tensor& weight, const Tensor* bias,
                 const NormParams& p) override {
    timed("head_norm", extent(x), [&] { inner_.head_norm(x, head_dim, weight, bias, p); });
  }
  void matmul(const Tensor& out, const Tensor& in, const Weight& weight, const Epilogue& epilogue) override {
    timed("matmul", {out.rows, out.cols, in.cols}, [&] { inner_.matmul(out, in, weight, epilogue); });
  }
  void route(const Routing& out, const Tensor& logits, const RouterParams& p) override {
    timed("route", extent(logits), [&] { inner_.route(out, logits, p); });
  }
  void mixture(const Tensor& out, const Tensor& in, const Routing& routing, const Mixture& experts) override {
    timed("mixture", {out.rows, out.cols, in.cols}, [&] { inner_.mixture(out, in, routing, experts); });
  }
  void rope_and_cache(const Tensor& q, const Tensor& qkv, KvStorage& kv, std::int32_t layer, const Batch& batch,
                      const AttentionShape& shape, const RopeParams& rope) override {
    timed("rope_and_cache", extent(qkv), [&] { inner_.rope_and_cache(q, qkv, kv, layer, batch, shape, rope); });
  }
  void attention(const Tensor& out, const Tensor& q, const KvStorage& kv, std::int32_t layer, const Batch& batch,
                 const AttentionParams& p) override {
    timed("attention", extent(out), [&] { inner_.attention(out, q, kv, layer, batch, p); });
  }
  void gather_rows(const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices) override {
    timed("gather_rows", extent(out), [&] { inner_.gather_rows(out, in, indices); });
  }
  void combine(const Tensor& out, const PartialSums& sums, const Epilogue& epilogue) override {
    timed("combine", extent(out), [&] { inner_.combine(out, sums, epilogue); });
  }
  void scale_softcap(const Tensor& x, float scale, float softcap) override {
    timed("scale_softcap", extent(x), [&] { inner_.scale_softcap(x, scale, softcap); });
  }
  void sample_tokens(const Tensor& logits, std::span<const SamplingTask> tasks,
                     std::span<SamplingResult> results) override {
    timed("sample_tokens", {std::ssize(tasks)}, [&] { inner_.sample_tokens(logits, tasks, results); });
  }
  void host_parallel(std::int64_t count, const std::function<void(std::int64_t)>& body) override {
    timed("host_parallel", {count}, [&] { inner_.host_parallel(count, body); });
  }

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
  std::vector<TimedOperation>& operations_;
};

}  // namespace

std::unique_ptr<Backend> make_timed(std::unique_ptr<Backend> backend, std::vector<TimedOperation>& operations) {
  return std::make_unique<TimedBackend>(std::move(backend), operations);
}

}  // namespace pagedcore
