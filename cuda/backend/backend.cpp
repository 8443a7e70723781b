#include "backend/backend.hpp"

#include <limits>
#include <vector>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "cpu/cpu_count.hpp"
#include "kernels/copy.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cuda {
namespace {

constexpr int kMaxThreads = 4096;
constexpr std::size_t kMinWorkspace = std::size_t{1} << 20;
constexpr std::size_t kStagingBytes = std::size_t{8} << 20;

const CudaOptions& checked(const CudaOptions& options) {
  if (options.dtype != DType::bf16 && options.dtype != DType::f16)
    throw InvalidArgument(str("the CUDA backend computes in bf16 or f16, not in ", info(options.dtype).name));
  if (options.threads < 0 || options.threads > kMaxThreads)
    throw InvalidArgument(str("threads = ", options.threads, " is outside [0, ", kMaxThreads,
                              "]; 0 means every CPU that this process may run on"));
  if (options.graph_rows < 0)
    throw InvalidArgument(str("graph_rows = ", options.graph_rows, "; 0 for no graphs, or the most rows of a step"));
  if (options.workspace < kMinWorkspace)
    throw InvalidArgument(str("workspace = ", options.workspace, "; at least ", kMinWorkspace));
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

/// Throws InvalidArgument unless `bytes` are exactly the rows of `t` without gaps; returns the bytes of a row.
std::size_t checked_row_bytes(const char* what, const Tensor& t, std::size_t bytes) {
  check_shape(what, t, t.rows, t.cols);
  const std::size_t row = bytes_of(t.dtype, t.cols);
  if (bytes != row * static_cast<std::size_t>(t.rows))
    throw InvalidArgument(str(what, " is ", shape_text(t), ", which is ", row * static_cast<std::size_t>(t.rows),
                              " bytes; the host memory has ", bytes));
  return row;
}

void check_blocks(const CudaKvStorage& kv, std::span<const BlockId> blocks, std::size_t places) {
  if (blocks.size() != places)
    throw InvalidArgument(str("a swap of ", blocks.size(), " blocks has ", places, " places in host memory"));
  for (const BlockId block : blocks) {
    if (raw(block) >= kv.num_blocks())
      throw InvalidArgument(str("swap of block ", raw(block), ": the KV storage has ", kv.num_blocks(), " blocks"));
  }
}

}  // namespace

CudaBackend::CudaBackend(const CudaOptions& options)
    : dtype_(checked(options).dtype),
      kv_dtype_(kv_dtype_of(options)),
      workspace_bytes_(options.workspace),
      graph_rows_(options.graph_rows),
      sample_on_device_(options.sample_on_device),
      device_(options.device),
      pool_(options.threads > 0 ? options.threads : cpu::usable_cpus()) {
  if (options.cublas_lt) cublas_lt_.emplace(device_, dtype_, workspace_bytes_);
  staging_.emplace(device_, kStagingBytes);
  swapper_.emplace(device_, *staging_, workspace_bytes_ / 8);
  sampler_.emplace(device_, *staging_, workspace_bytes_ / 8);
  graphs_.emplace(device_, *staging_);
}

CudaBackend::~CudaBackend() = default;

std::string CudaBackend::describe() const {
  const std::string kv = kv_dtype_ == dtype_ ? "" : str(" (KV in ", info(kv_dtype_).name, ")");
  const std::string products = cublas_lt_ ? str(", ", cublas_lt_->name()) : "";
  return str("cuda, ", device_.name(), ", ", info(dtype_).name, kv, products, ", ", pool_.threads(), " host threads");
}

void CudaBackend::check_compute(const char* what, const Tensor& t) const {
  if (t.dtype != dtype_)
    throw InvalidArgument(str(what, " is ", shape_text(t), "; this backend computes in ", info(dtype_).name));
}

// Memory.

void CudaBackend::zero(const DeviceMemory& memory) {
  if (memory.bytes() == 0) return;
  device_.check(cudaMemsetAsync(memory.data(), 0, memory.bytes(), device_.stream()), "clearing memory");
}

std::unique_ptr<Buffer> CudaBackend::allocate(std::size_t bytes) {
  device_.use();
  DeviceMemory memory(device_, bytes);
  zero(memory);
  return std::make_unique<CudaBuffer>(std::move(memory));
}

void CudaBackend::upload(const Tensor& dst, std::span<const std::byte> src) {
  const std::size_t row_bytes = checked_row_bytes("upload: the destination", dst, src.size());
  device_.use();
  auto* to = static_cast<std::byte*>(dst.data);
  if (dst.stride == dst.cols) return staging_->upload(to, src, device_.stream());
  for (std::int64_t row = 0; row < dst.rows && row_bytes > 0; ++row) {
    staging_->upload(static_cast<std::byte*>(dst.slice_rows(row, 1).data),
                     src.subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes), device_.stream());
  }
}

void CudaBackend::download(std::span<std::byte> dst, const Tensor& src) {
  const std::size_t row_bytes = checked_row_bytes("download: the source", src, dst.size());
  device_.use();
  if (src.stride == src.cols) return staging_->download(dst, static_cast<const std::byte*>(src.data), device_.stream());
  for (std::int64_t row = 0; row < src.rows && row_bytes > 0; ++row) {
    staging_->download(dst.subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes),
                       static_cast<const std::byte*>(src.slice_rows(row, 1).data), device_.stream());
  }
}

void CudaBackend::synchronize() {
  device_.use();
  device_.check(cudaStreamSynchronize(device_.stream()), "waiting for the device");
  swapper_->finish();
}

std::optional<std::size_t> CudaBackend::available_memory() const {
  const std::size_t free = device_.free_memory();
  return free > workspace() ? free - workspace() : 0;
}

void CudaBackend::reserve(std::size_t bytes) {
  device_.reserve(bytes, workspace());
  if (cublas_lt_) cublas_lt_->take_memory();
}

// Weights and KV storage.

PackSpec CudaBackend::spec(std::int64_t n, std::int64_t k, PackKind kind) const {
  PackSpec spec;
  spec.n = n;
  spec.k = k;
  spec.kind = kind;
  spec.format = cublas_lt_ ? WeightFormat::plain : WeightFormat::native;
  spec.type = dtype_;
  return spec;
}

std::size_t CudaBackend::packed_bytes(std::int64_t n, std::int64_t k, PackKind kind) const {
  return spec(n, k, kind).weight_bytes();
}

std::unique_ptr<Weight> CudaBackend::pack(std::span<const HostTensor> parts, PackKind kind) {
  const std::int64_t n = checked_pack_rows(parts, kind), k = parts[0].cols();
  device_.use();
  const PackSpec packed = spec(n, k, kind);
  DeviceMemory memory(device_, packed.weight_bytes());
  std::vector<std::byte> host(packed.weight_bytes());
  const RowSource rows = [&](std::int64_t row, std::span<float> values) {
    const HostTensor* part = parts.data();
    while (row >= part->rows()) row -= (part++)->rows();
    to_f32(*part, row * k, values);
  };
  pack_matrix(packed, rows, host, {});
  staging_->upload(memory.data(), host, device_.stream());
  return std::make_unique<CudaWeight>(packed, std::move(memory));
}

std::size_t CudaBackend::kv_block_bytes(const KvShape& shape) const {
  return static_cast<std::size_t>(cuda::kv_block_bytes(kv_tile_of(shape), shape.num_layers, shape.num_kv_heads));
}

std::unique_ptr<KvStorage> CudaBackend::allocate_kv(const KvShape& shape, std::uint32_t num_blocks) {
  const std::size_t block = kv_block_bytes(shape);
  if (num_blocks == 0) throw InvalidArgument("KV storage of 0 blocks: give at least 1");
  if (shape.dtype != dtype_ && shape.dtype != DType::f8_e4m3 && shape.dtype != DType::i8)
    throw Unsupported(str("KV element type ", info(shape.dtype).name, " with a compute type of ", info(dtype_).name,
                          ": use the same, f8_e4m3 or i8"));
  if (block > std::numeric_limits<std::size_t>::max() / 2 / num_blocks)
    throw OutOfMemory(str(num_blocks, " KV blocks x ", block, " bytes are more than the address space; ask for fewer"));
  device_.use();
  DeviceMemory memory(device_, block * num_blocks);
  zero(memory);
  return std::make_unique<CudaKvStorage>(shape, num_blocks, std::move(memory));
}

void CudaBackend::copy_blocks(KvStorage& storage, std::span<const BlockCopy> copies) {
  const auto& kv = static_cast<const CudaKvStorage&>(storage);
  std::vector<std::uint32_t> src, dst;
  for (const BlockCopy& copy : copies) {
    if (raw(copy.src) >= kv.num_blocks() || raw(copy.dst) >= kv.num_blocks())
      throw InvalidArgument(str("copy of block ", raw(copy.src), " to block ", raw(copy.dst), ": the KV storage has ",
                                kv.num_blocks(), " blocks"));
    src.push_back(raw(copy.src));
    dst.push_back(raw(copy.dst));
  }
  if (copies.empty()) return;
  device_.use();
  ArrayUpload arrays;
  const std::size_t src_at = arrays.add<std::uint32_t>(src), dst_at = arrays.add<std::uint32_t>(dst);
  const DeviceMemory indices = arrays.send(device_, *staging_);
  CopyArgs args;
  args.src = args.dst = kv.data();
  args.src_stride = args.dst_stride = args.bytes = static_cast<std::int64_t>(kv.block_bytes());
  args.src_index = reinterpret_cast<const std::uint32_t*>(indices.data() + src_at);
  args.dst_index = reinterpret_cast<const std::uint32_t*>(indices.data() + dst_at);
  args.count = static_cast<std::int32_t>(copies.size());
  device_.check(launch_copy(args, device_.stream()), "copying blocks");
}

void CudaBackend::swap_out(const KvStorage& storage, std::span<const BlockId> blocks, std::span<std::byte* const> dst) {
  const auto& kv = static_cast<const CudaKvStorage&>(storage);
  check_blocks(kv, blocks, dst.size());
  device_.use();
  swapper_->out(kv, blocks, dst);
}

void CudaBackend::swap_in(KvStorage& storage, std::span<const BlockId> blocks, std::span<const std::byte* const> src) {
  const auto& kv = static_cast<const CudaKvStorage&>(storage);
  check_blocks(kv, blocks, src.size());
  device_.use();
  swapper_->in(kv, blocks, src);
}

void CudaBackend::host_parallel(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  pool_.for_each_rethrowing(count, body);
}

}  // namespace pagedcore::cuda
