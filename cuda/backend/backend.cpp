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

constexpr std::size_t kStagingBytes = std::size_t{8} << 20;

}  // namespace

CudaBackend::CudaBackend(const CudaOptions& options)
    : sizes_(options),
      dtype_(sizes_.compute_dtype()),
      graph_rows_(options.graph_rows),
      sample_on_device_(options.sample_on_device),
      device_(options.device),
      pool_(options.threads > 0 ? options.threads : cpu::usable_cpus()) {
  if (options.cublas_lt) cublas_lt_.emplace(device_, dtype_, options.workspace);
  staging_.emplace(device_, kStagingBytes);
  swapper_.emplace(device_, *staging_, options.workspace / 8);
  sampler_.emplace(device_, *staging_, options.workspace / 8);
  graphs_.emplace(device_, *staging_);
}

/// On whatever thread, which may be at work with another device.
CudaBackend::~CudaBackend() {
  const CurrentDevice current(device_.index());
  graphs_.reset();
  sampler_.reset();
  swapper_.reset();
  staging_.reset();
  cublas_lt_.reset();
}

std::string CudaBackend::describe() const {
  const std::string kv = kv_dtype() == dtype_ ? "" : str(" (KV in ", info(kv_dtype()).name, ")");
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

std::optional<std::size_t> CudaBackend::available_memory() const { return sizes_.usable(device_.free_memory()); }

void CudaBackend::reserve(std::size_t bytes) {
  device_.reserve(bytes, sizes_.workspace(), sizes_.driver());
  if (cublas_lt_) cublas_lt_->take_memory();
}

// Weights and KV storage.

std::unique_ptr<Weight> CudaBackend::pack(std::span<const HostTensor> parts, const WeightForm& form) {
  const std::int64_t n = checked_pack_rows(parts, form), k = parts[0].cols();
  device_.use();
  const PackSpec packed = sizes_.weight(n, k, form);
  DeviceMemory memory(device_, packed.weight_bytes());
  std::vector<std::byte> host(packed.weight_bytes());
  const RowSource rows = [&](std::int64_t row, std::span<float> values) {
    const HostTensor* part = parts.data();
    while (row >= part->rows()) row -= (part++)->rows();
    to_f32(*part, row * k, values);
  };
  pack_matrix(packed, rows, host, {},
              [&](std::int64_t count, const auto& body) { pool_.for_each_rethrowing(count, body); });
  staging_->upload(memory.data(), host, device_.stream());
  return std::make_unique<CudaWeight>(packed, std::move(memory));
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
  check_copies(copies, kv.num_blocks(), kv.shape().block_size);
  std::vector<std::uint32_t> src, dst;
  for (const BlockCopy& copy : copies) {
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
  check_swap(blocks, dst.size(), kv.num_blocks());
  device_.use();
  swapper_->out(kv, blocks, dst);
}

void CudaBackend::swap_in(KvStorage& storage, std::span<const BlockId> blocks, std::span<const std::byte* const> src) {
  const auto& kv = static_cast<const CudaKvStorage&>(storage);
  check_swap(blocks, src.size(), kv.num_blocks());
  device_.use();
  swapper_->in(kv, blocks, src);
}

void CudaBackend::host_parallel(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  pool_.for_each_rethrowing(count, body);
}

}  // namespace pagedcore::cuda
