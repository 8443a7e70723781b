// A backend that passes everything on to another one: the base of those that change something on the way.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "pagedcore/backend.hpp"

namespace pagedcore {

class ForwardingBackend : public Backend {
 public:
  explicit ForwardingBackend(Backend& inner) : inner_(inner) {}

  std::string describe() const override { return inner_.describe(); }
  DType compute_dtype() const noexcept override { return inner_.compute_dtype(); }
  DType kv_dtype() const noexcept override { return inner_.kv_dtype(); }
  std::unique_ptr<Buffer> allocate(std::size_t bytes) override { return inner_.allocate(bytes); }
  void upload(const Tensor& dst, std::span<const std::byte> src) override { inner_.upload(dst, src); }
  void download(std::span<std::byte> dst, const Tensor& src) override { inner_.download(dst, src); }
  void synchronize() override { inner_.synchronize(); }
  std::optional<std::size_t> available_memory() const override { return inner_.available_memory(); }
  void reserve(std::size_t bytes) override { inner_.reserve(bytes); }
  std::unique_ptr<Weight> pack(std::span<const HostTensor> parts, const WeightForm& form) override {
    return inner_.pack(parts, form);
  }
  std::size_t packed_bytes(std::int64_t n, std::int64_t k, const WeightForm& form) const override {
    return inner_.packed_bytes(n, k, form);
  }
  PackedSize packed_size(std::span<const HostTensor> parts, const WeightForm& form) const override {
    return inner_.packed_size(parts, form);
  }
  std::unique_ptr<KvStorage> allocate_kv(const KvShape& shape, std::uint32_t blocks) override {
    return inner_.allocate_kv(shape, blocks);
  }
  std::size_t kv_block_bytes(const KvShape& shape) const override { return inner_.kv_block_bytes(shape); }
  void copy_blocks(KvStorage& kv, std::span<const BlockCopy> copies) override { inner_.copy_blocks(kv, copies); }
  void swap_out(const KvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst) override {
    inner_.swap_out(kv, blocks, dst);
  }
  void swap_in(KvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src) override {
    inner_.swap_in(kv, blocks, src);
  }
  std::unique_ptr<Batch> prepare(const BatchView& view, std::int32_t block_size) override {
    return inner_.prepare(view, block_size);
  }
  void run_step(const Batch& batch, const std::function<void()>& operations) override {
    inner_.run_step(batch, operations);
  }
  void embed(const Tensor& out, const Weight& table, const Batch& batch, float scale) override {
    inner_.embed(out, table, batch, scale);
  }
  void norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias,
            const NormParams& p) override {
    inner_.norm(out, in, weight, bias, p);
  }
  void head_norm(const Tensor& x, std::int32_t head_dim, const Tensor& weight, const Tensor* bias,
                 const NormParams& p) override {
    inner_.head_norm(x, head_dim, weight, bias, p);
  }
  void embed_positions(const Tensor& out, const Weight& table, const Batch& batch, std::int32_t offset) override {
    inner_.embed_positions(out, table, batch, offset);
  }
  void add(const Tensor& x, const Tensor& y, float scale) override { inner_.add(x, y, scale); }
  void convert(const Tensor& out, const Tensor& in) override { inner_.convert(out, in); }
  void matmul(const Tensor& out, const Tensor& in, const Weight& weight, const Epilogue& epilogue) override {
    inner_.matmul(out, in, weight, epilogue);
  }
  bool serves_mixtures() const noexcept override { return inner_.serves_mixtures(); }
  bool serves_sinks() const noexcept override { return inner_.serves_sinks(); }
  void route(const Routing& out, const Tensor& logits, const RouterParams& p) override { inner_.route(out, logits, p); }
  void mixture(const Tensor& out, const Tensor& in, const Routing& routing, const Mixture& experts) override {
    inner_.mixture(out, in, routing, experts);
  }
  void rope_and_cache(const Tensor& q, const Tensor& qkv, KvStorage& kv, std::int32_t layer, const Batch& batch,
                      const AttentionShape& shape, const RopeParams& rope) override {
    inner_.rope_and_cache(q, qkv, kv, layer, batch, shape, rope);
  }
  void attention(const Tensor& out, const Tensor& q, const KvStorage& kv, std::int32_t layer, const Batch& batch,
                 const AttentionParams& p) override {
    inner_.attention(out, q, kv, layer, batch, p);
  }
  void gather_rows(const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices) override {
    inner_.gather_rows(out, in, indices);
  }
  void combine(const Tensor& out, const PartialSums& sums, const Epilogue& epilogue) override {
    inner_.combine(out, sums, epilogue);
  }
  void embed_some(const Tensor& out, const Weight& table, const Batch& batch, float scale, TokenId first) override {
    inner_.embed_some(out, table, batch, scale, first);
  }
  void scale_softcap(const Tensor& x, float scale, float softcap) override { inner_.scale_softcap(x, scale, softcap); }
  void sample_tokens(const Tensor& logits, std::span<const SamplingTask> tasks,
                     std::span<SamplingResult> results) override {
    inner_.sample_tokens(logits, tasks, results);
  }
  void host_parallel(std::int64_t count, const std::function<void(std::int64_t)>& body) override {
    inner_.host_parallel(count, body);
  }
  const void* host_view(const Tensor& t) noexcept override { return inner_.host_view(t); }

 protected:
  Backend& inner_;
};

}  // namespace pagedcore
