#include "sizes/sizes.hpp"

#include <algorithm>

#include "backend/checks.hpp"
#include "base/field_lists.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace cuda {
namespace {

constexpr std::size_t kGranule = 256;                         // whole pieces of the arena
constexpr std::size_t kMostCublasLt = std::size_t{32} << 20;  // what NVIDIA advises for sm_90; other cards need less
// Assumed, not measured: eight graphs of up to 2,000 nodes of about 2 KiB; kernels of a few shapes.
constexpr std::size_t kGraphBytes = std::size_t{32} << 20;
constexpr std::size_t kCublasLtCode = std::size_t{64} << 20;

const CudaOptions& checked(const CudaOptions& options) {
  check_ranges(options, "CUDA option");
  if (options.dtype != DType::bf16 && options.dtype != DType::f16)
    throw InvalidArgument(str("the CUDA backend computes in bf16 or f16, not in ", info(options.dtype).name));
  return options;
}

DType kv_dtype_of(const CudaOptions& options) {
  switch (options.kv_cache_dtype) {
    case KvCacheType::fp8:
      return DType::f8_e4m3;
    case KvCacheType::int8:
      return DType::i8;
    case KvCacheType::compute:
      break;
  }
  return options.dtype;
}

KvType kv_type_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return KvType::f16;
    case DType::bf16:
      return KvType::bf16;
    case DType::f8_e4m3:
      return KvType::fp8_e4m3;
    case DType::i8:
      return KvType::int8;
    default:
      throw Unsupported(
          str("KV element type ", info(dtype).name, ": the CUDA backend stores f16, bf16, f8_e4m3 or i8"));
  }
}

}  // namespace

KvTile kv_tile_of(const KvShape& shape) {
  check_kv_shape(shape);
  if (!attention_supports(shape.head_dim))
    throw Unsupported(str("head size ", shape.head_dim, ": the CUDA backend serves 64, 80, 96, 112, 128 and 256"));
  return {kv_type_of(shape.dtype), shape.head_dim, shape.block_size};
}

Sizes::Sizes(const CudaOptions& options)
    : dtype_(checked(options).dtype),
      kv_dtype_(kv_dtype_of(options)),
      workspace_(options.workspace),
      graphs_(options.graph_rows > 0),
      cublas_lt_(options.cublas_lt),
      utilization_(options.gpu_memory_utilization) {}

PackSpec Sizes::weight(std::int64_t n, std::int64_t k, const WeightForm& form) const {
  const bool leaves = form.leaf_ends.size() > 1;
  if (form.leaf_ends.size() > kMostLeavesOfKernel)
    throw Unsupported(str("a weight of ", form.leaf_ends.size(), " leaves: the CUDA backend sums up to ",
                          kMostLeavesOfKernel, "; a model has one for each query head, of sizes over 128 several"));
  if (form.f32) throw Unsupported("a weight in f32: the CUDA backend multiplies in bf16 or f16");
  PackSpec spec;
  spec.n = n;
  spec.k = k;
  spec.kind = form.kind;
  spec.format = cublas_lt_ && !leaves ? WeightFormat::plain : WeightFormat::native;  // cuBLASLt knows no leaves
  if (leaves) spec.leaf_ends = form.leaf_ends;
  spec.type = dtype_;
  return spec;
}

std::size_t Sizes::packed_bytes(std::int64_t n, std::int64_t k, const WeightForm& form) const {
  return weight(n, k, form).weight_bytes();
}

std::size_t Sizes::kv_block_bytes(const KvShape& shape) const {
  return static_cast<std::size_t>(cuda::kv_block_bytes(kv_tile_of(shape), shape.num_layers, shape.num_kv_heads));
}

CublasLtBytes cublas_lt_bytes(std::size_t workspace) noexcept {
  const std::size_t half = workspace / 2 / kGranule * kGranule;
  return {std::min(kMostCublasLt, half), half};
}

std::size_t Sizes::workspace() const noexcept {
  const CublasLtBytes more = cublas_lt_ ? cublas_lt_bytes(workspace_) : CublasLtBytes{};
  return workspace_ + more.own + more.sums;
}

std::size_t Sizes::driver() const noexcept { return (graphs_ ? kGraphBytes : 0) + (cublas_lt_ ? kCublasLtCode : 0); }

std::size_t Sizes::usable(std::size_t free) const {
  const std::size_t left = free > driver() ? free - driver() : 0;
  const auto asked = static_cast<std::size_t>(utilization_ * static_cast<double>(free));
  const std::size_t taken = std::min(left, asked);
  return taken > workspace() ? taken - workspace() : 0;
}

}  // namespace cuda

std::unique_ptr<CudaSizes> cuda_sizes(const CudaOptions& options) { return std::make_unique<cuda::Sizes>(options); }

}  // namespace pagedcore
