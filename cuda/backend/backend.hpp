// The CUDA backend: pagedcore::Backend over the kernels of cuda/kernels. Made by the plugin's entry.
#pragma once

#include <optional>

#include "backend/batch.hpp"
#include "backend/cublas_lt.hpp"
#include "backend/sampler.hpp"
#include "backend/step_graph.hpp"
#include "backend/storage.hpp"
#include "backend/swapper.hpp"
#include "cpu/thread_pool.hpp"

namespace pagedcore::cuda {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options);
  ~CudaBackend() override;

  std::string describe() const override;
  DType compute_dtype() const noexcept override { return dtype_; }
  DType kv_dtype() const noexcept override { return sizes_.kv_dtype(); }

  std::unique_ptr<Buffer> allocate(std::size_t bytes) override;
  void upload(const Tensor& dst, std::span<const std::byte> src) override;
  void download(std::span<std::byte> dst, const Tensor& src) override;
  void synchronize() override;
  std::optional<std::size_t> available_memory() const override;
  void reserve(std::size_t bytes) override;

  std::unique_ptr<Weight> pack(std::span<const HostTensor> parts, const WeightForm& form) override;
  std::size_t packed_bytes(std::int64_t n, std::int64_t k, const WeightForm& form) const override {
    return sizes_.packed_bytes(n, k, form);
  }

  std::unique_ptr<KvStorage> allocate_kv(const KvShape& shape, std::uint32_t num_blocks) override;
  std::size_t kv_block_bytes(const KvShape& shape) const override { return sizes_.kv_block_bytes(shape); }
  void copy_blocks(KvStorage& kv, std::span<const BlockCopy> copies) override;
  void swap_out(const KvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst) override;
  void swap_in(KvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src) override;

  std::unique_ptr<Batch> prepare(const BatchView& view, std::int32_t block_size) override;
  void run_step(const Batch& batch, const std::function<void()>& operations) override;
  void embed(const Tensor& out, const Weight& table, const Batch& batch, float scale) override;
  void norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias,
            const NormParams& p) override;
  void head_norm(const Tensor& x, std::int32_t head_dim, const Tensor& weight, const Tensor* bias,
                 const NormParams& p) override;
  void embed_positions(const Tensor& out, const Weight& table, const Batch& batch, std::int32_t offset) override;
  void add(const Tensor& x, const Tensor& y, float scale) override;
  void convert(const Tensor& out, const Tensor& in) override;
  void matmul(const Tensor& out, const Tensor& in, const Weight& weight, const Epilogue& epilogue) override;
  void rope_and_cache(const Tensor& q, const Tensor& qkv, KvStorage& kv, std::int32_t layer, const Batch& batch,
                      const AttentionShape& shape, const RopeParams& rope) override;
  void attention(const Tensor& out, const Tensor& q, const KvStorage& kv, std::int32_t layer, const Batch& batch,
                 const AttentionParams& p) override;
  void gather_rows(const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices) override;
  void scale_softcap(const Tensor& x, float scale, float softcap) override;

  void sample_tokens(const Tensor& logits, std::span<const SamplingTask> tasks,
                     std::span<SamplingResult> results) override;
  void host_parallel(std::int64_t count, const std::function<void(std::int64_t)>& body) override;
  const void* host_view(const Tensor&) noexcept override { return nullptr; }

 private:
  void check_compute(const char* what, const Tensor& t) const;
  ComputeType compute() const noexcept { return dtype_ == DType::f16 ? ComputeType::f16 : ComputeType::bf16; }
  void zero(const DeviceMemory& memory);

  const Sizes sizes_;
  const DType dtype_;
  const std::int32_t graph_rows_;
  const bool sample_on_device_;
  int failed_recordings_ = 0;
  mutable Device device_;
  cpu::ThreadPool pool_;
  std::optional<CublasLt> cublas_lt_;
  std::optional<Staging> staging_;
  std::optional<Swapper> swapper_;
  std::optional<Sampler> sampler_;
  std::optional<StepGraphs> graphs_;
};

}  // namespace pagedcore::cuda
