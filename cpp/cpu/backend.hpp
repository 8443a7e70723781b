// The CPU backend: pagedcore::Backend over the kernels of this room. Made by make_cpu_backend().
#pragma once

#include <memory>

#include "cpu/elementwise/elementwise.hpp"
#include "cpu/isa.hpp"
#include "cpu/large_memory.hpp"
#include "cpu/matmul/matmul.hpp"
#include "cpu/mixture/row_lists.hpp"
#include "cpu/thread_pool.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu {

class CpuBackend final : public Backend {
 public:
  CpuBackend(const CpuOptions& options, int threads, Isa isa);

  std::string describe() const override;
  DType compute_dtype() const noexcept override { return dtype_; }
  DType kv_dtype() const noexcept override { return kv_dtype_; }

  std::unique_ptr<Buffer> allocate(std::size_t bytes) override;
  void upload(const Tensor& dst, std::span<const std::byte> src) override;
  void download(std::span<std::byte> dst, const Tensor& src) override;
  void synchronize() override {}  // every operation waits for its workers

  std::unique_ptr<Weight> pack(std::span<const HostTensor> parts, const WeightForm& form) override;
  std::size_t packed_bytes(std::int64_t n, std::int64_t k, const WeightForm& form) const override;
  PackedSize packed_size(std::span<const HostTensor> parts, const WeightForm& form) const override;

  bool serves_mixtures() const noexcept override { return true; }
  bool serves_sinks() const noexcept override { return true; }
  std::unique_ptr<KvStorage> allocate_kv(const KvShape& shape, std::uint32_t num_blocks) override;
  std::size_t kv_block_bytes(const KvShape& shape) const override;
  void copy_blocks(KvStorage& kv, std::span<const BlockCopy> copies) override;
  void swap_out(const KvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst) override;
  void swap_in(KvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src) override;

  std::unique_ptr<Batch> prepare(const BatchView& view, std::int32_t block_size) override;
  void embed(const Tensor& out, const Weight& table, const Batch& batch, float scale) override;
  void norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias,
            const NormParams& p) override;
  void head_norm(const Tensor& x, std::int32_t head_dim, const Tensor& weight, const Tensor* bias,
                 const NormParams& p) override;
  void embed_positions(const Tensor& out, const Weight& table, const Batch& batch, std::int32_t offset) override;
  void add(const Tensor& x, const Tensor& y, float scale) override;
  void convert(const Tensor& out, const Tensor& in) override;
  void matmul(const Tensor& out, const Tensor& in, const Weight& weight, const Epilogue& epilogue) override;
  void route(const Routing& out, const Tensor& logits, const RouterParams& p) override;
  void mixture(const Tensor& out, const Tensor& in, const Routing& routing, const Mixture& experts) override;
  void rope_and_cache(const Tensor& q, const Tensor& qkv, KvStorage& kv, std::int32_t layer, const Batch& batch,
                      const AttentionShape& shape, const RopeParams& rope) override;
  void attention(const Tensor& out, const Tensor& q, const KvStorage& kv, std::int32_t layer, const Batch& batch,
                 const AttentionParams& p) override;
  void gather_rows(const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices) override;
  void combine(const Tensor& out, const PartialSums& sums, const Epilogue& epilogue) override;
  void embed_some(const Tensor& out, const Weight& table, const Batch& batch, float scale, TokenId first) override;
  void scale_softcap(const Tensor& x, float scale, float softcap) override;

  void host_parallel(std::int64_t count, const std::function<void(std::int64_t)>& body) override;
  const void* host_view(const Tensor& t) noexcept override { return t.data; }

 private:
  PanelForms forms_for(const WeightForm& form) const;
  void check_compute(const char* what, const Tensor& t) const;

  const DType dtype_;
  const DType kv_dtype_;
  const Isa isa_;
  const WeightStorage weights_;
  const PanelForms forms_;
  const NormKernels& norms_;
  ThreadPool pool_;
  Scratch scratch_;  // of the pool's workers, for products
  RowLists lists_;
};

}  // namespace pagedcore::cpu
