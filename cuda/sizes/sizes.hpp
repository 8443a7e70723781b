// The arithmetic of a GPU's memory, which the backend allocates by and a plan is made of where there is no GPU: part of
// libpagedcore too, so nothing here needs CUDA.
#pragma once

#include "backend/cuda_sizes.hpp"
#include "kernels/kv_tile.hpp"
#include "kernels/matmul_pack.hpp"

namespace pagedcore::cuda {

/// Throws Unsupported for a shape that the kernels do not serve.
KvTile kv_tile_of(const KvShape& shape);

/// Of device memory, on top of a workspace of so many bytes: cuBLASLt's own workspace, and sums that wait for an
/// epilogue.
struct CublasLtBytes {
  std::size_t own = 0, sums = 0;
};
CublasLtBytes cublas_lt_bytes(std::size_t workspace) noexcept;

class Sizes final : public CudaSizes {
 public:
  explicit Sizes(const CudaOptions& options);

  DType compute_dtype() const noexcept override { return dtype_; }
  DType kv_dtype() const noexcept override { return kv_dtype_; }
  std::size_t packed_bytes(std::int64_t n, std::int64_t k, const WeightForm& form) const override;
  std::size_t kv_block_bytes(const KvShape& shape) const override;
  std::size_t usable(std::size_t free) const override;

  /// Throws Unsupported for too many leaves.
  PackSpec weight(std::int64_t n, std::int64_t k, const WeightForm& form) const;
  /// CudaOptions::workspace.
  std::size_t step_workspace() const noexcept { return workspace_; }
  /// And with what cuBLASLt needs.
  std::size_t workspace() const noexcept;
  /// What the driver takes while an engine runs: executable graphs, and the kernels that cuBLASLt loads as shapes come.
  std::size_t driver() const noexcept;

 private:
  DType dtype_, kv_dtype_;
  std::size_t workspace_;
  bool graphs_, cublas_lt_;
  double utilization_;
};

}  // namespace pagedcore::cuda
