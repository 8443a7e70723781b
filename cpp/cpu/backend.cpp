#include "cpu/backend.hpp"

#include <cstring>
#include <new>

#include "base/field_lists.hpp"
#include "base/field_text.hpp"
#include "cpu/attention/attention.hpp"
#include "cpu/cpu_count.hpp"
#include "cpu/elementwise/rows.hpp"
#include "cpu/kv/kv.hpp"
#include "cpu/matmul/layout.hpp"
#include "cpu/matmul/matmul.hpp"
#include "cpu/mixture/mixture.hpp"
#include "pagedcore/devices.hpp"

namespace pagedcore::cpu {
namespace {

constexpr std::align_val_t kAlignment{64};

class CpuBuffer final : public Buffer {
 public:
  explicit CpuBuffer(std::size_t bytes) : bytes_(bytes) {
    if (bytes <= PTRDIFF_MAX) data_ = ::operator new(bytes, kAlignment, std::nothrow);
    if (data_ == nullptr)
      throw OutOfMemory(str("cannot allocate a buffer of ", bytes, " bytes; free memory or ask for less"));
    std::memset(data_, 0, bytes);
  }
  ~CpuBuffer() override { ::operator delete(data_, kAlignment); }
  CpuBuffer(const CpuBuffer&) = delete;
  CpuBuffer& operator=(const CpuBuffer&) = delete;

  void* data() noexcept override { return data_; }
  std::size_t bytes() const noexcept override { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_;
};

}  // namespace

namespace {

/// Which panels the options ask for.
PanelForms forms_of(const CpuOptions& options, Isa isa) {
  PanelForms forms(options.weights != WeightStorage::dense);
  if (options.dtype == DType::i8) forms.integer = &integer_kernel_of(isa);
  if (options.weights == WeightStorage::int8) forms.rounded = DType::q8_0;
  if (options.weights == WeightStorage::int4) forms.rounded = DType::q4_1;
  return forms;
}

}  // namespace

CpuBackend::CpuBackend(const CpuOptions& options, int threads, Isa isa)
    : dtype_(options.dtype == DType::i8 ? DType::bf16 : options.dtype),
      kv_dtype_(options.kv_cache_dtype == KvCacheType::int8 ? DType::i8 : dtype_),
      isa_(isa),
      weights_(options.weights),
      forms_(forms_of(options, isa)),
      norms_(norm_kernels(isa)),
      pool_(threads) {}

std::string CpuBackend::describe() const {
  const std::string weights = weights_ == WeightStorage::automatic ? "native" : to_text(weights_);
  const std::string products = forms_.integer == nullptr ? "" : str("int8 products by ", forms_.integer->name, ", ");
  const std::string kv = kv_dtype_ == dtype_ ? "" : str(" (KV in ", info(kv_dtype_).name, ")");
  return str("cpu, ", name(isa_), ", ", products, info(dtype_).name, kv, ", ", weights, " weights, ", pool_.threads(),
             " threads");
}

// Memory.

std::unique_ptr<Buffer> CpuBackend::allocate(std::size_t bytes) { return std::make_unique<CpuBuffer>(bytes); }

void CpuBackend::upload(const Tensor& dst, std::span<const std::byte> src) {
  const std::size_t row_bytes = checked_row_bytes("upload: the destination", dst, src.size());
  for (std::int64_t row = 0; row < dst.rows && row_bytes > 0; ++row)
    std::memcpy(dst.slice_rows(row, 1).data, src.data() + static_cast<std::size_t>(row) * row_bytes, row_bytes);
}

void CpuBackend::download(std::span<std::byte> dst, const Tensor& src) {
  const std::size_t row_bytes = checked_row_bytes("download: the source", src, dst.size());
  for (std::int64_t row = 0; row < src.rows && row_bytes > 0; ++row)
    std::memcpy(dst.data() + static_cast<std::size_t>(row) * row_bytes, src.slice_rows(row, 1).data, row_bytes);
}

// Weights and KV storage.

PanelForms CpuBackend::forms_for(const WeightForm& form) const {
  PanelForms forms = forms_;
  if (form.of_expert) forms.integer = nullptr;
  return forms;
}

std::unique_ptr<Weight> CpuBackend::pack(std::span<const HostTensor> parts, const WeightForm& form) {
  return form.f32 ? pack_weight(pool_, parts, form, isa_, DType::f32)
                  : pack_weight(pool_, parts, form, isa_, dtype_, forms_for(form));
}

PackedSize CpuBackend::packed_size(std::span<const HostTensor> parts, const WeightForm& form) const {
  return form.f32 ? packed_weight_size(parts, form, isa_, DType::f32, {})
                  : packed_weight_size(parts, form, isa_, dtype_, forms_for(form));
}

std::size_t CpuBackend::packed_bytes(std::int64_t n, std::int64_t k, const WeightForm& form) const {
  return packed_weight_bytes(n, k, form, isa_, form.f32 ? DType::f32 : dtype_);
}

std::unique_ptr<KvStorage> CpuBackend::allocate_kv(const KvShape& shape, std::uint32_t num_blocks) {
  return make_kv_storage(shape, num_blocks, isa_, dtype_);
}

std::size_t CpuBackend::kv_block_bytes(const KvShape& shape) const { return cpu::kv_block_bytes(shape, isa_); }

void CpuBackend::copy_blocks(KvStorage& kv, std::span<const BlockCopy> copies) { cpu::copy_blocks(pool_, kv, copies); }
void CpuBackend::swap_out(const KvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst) {
  cpu::swap_out(pool_, kv, blocks, dst);
}
void CpuBackend::swap_in(KvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src) {
  cpu::swap_in(pool_, kv, blocks, src);
}

// The operations of a step. Their kernels check shapes; what only the backend knows, its compute type, is checked here.

void CpuBackend::check_compute(const char* what, const Tensor& t) const {
  if (t.dtype != dtype_)
    throw InvalidArgument(str(what, " is ", shape_text(t), "; this backend computes in ", info(dtype_).name));
}

std::unique_ptr<Batch> CpuBackend::prepare(const BatchView& view, std::int32_t block_size) {
  return make_batch(view, block_size);
}

void CpuBackend::embed(const Tensor& out, const Weight& table, const Batch& batch, float scale) {
  cpu::embed(pool_, out, table, batch_tokens(batch), scale);
}

void CpuBackend::norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias,
                      const NormParams& p) {
  if (out.dtype != DType::f32) check_compute("norm: the output", out);
  cpu::norm(pool_, norms_, out, in, weight, bias, p);
}

void CpuBackend::head_norm(const Tensor& x, std::int32_t head_dim, const Tensor& weight, const Tensor* bias,
                           const NormParams& p) {
  cpu::head_norm(pool_, norms_, x, head_dim, weight, bias, p);
}
void CpuBackend::embed_positions(const Tensor& out, const Weight& table, const Batch& batch, std::int32_t offset) {
  cpu::embed_positions(pool_, out, table, batch_positions(batch), offset);
}
void CpuBackend::add(const Tensor& x, const Tensor& y, float scale) { cpu::add(pool_, x, y, scale); }
void CpuBackend::convert(const Tensor& out, const Tensor& in) {
  if (out.dtype != DType::f32) check_compute("convert: the output", out);
  cpu::convert(pool_, out, in);
}

void CpuBackend::matmul(const Tensor& out, const Tensor& in, const Weight& weight, const Epilogue& epilogue) {
  if (out.dtype != DType::f32) check_compute("matmul: the output", out);
  cpu::matmul(pool_, scratch_, out, in, weight, epilogue);
}

void CpuBackend::route(const Routing& out, const Tensor& logits, const RouterParams& p) {
  cpu::route(pool_, out, logits, p);
}
void CpuBackend::mixture(const Tensor& out, const Tensor& in, const Routing& routing, const Mixture& experts) {
  cpu::mixture(pool_, scratch_, lists_, out, in, routing, experts);
}

void CpuBackend::rope_and_cache(const Tensor& q, const Tensor& qkv, KvStorage& kv, std::int32_t layer,
                                const Batch& batch, const AttentionShape& shape, const RopeParams& rope) {
  check_compute("rope_and_cache: q", q);
  cpu::rope_and_cache(pool_, q, qkv, kv, layer, batch, shape, rope);
}

void CpuBackend::attention(const Tensor& out, const Tensor& q, const KvStorage& kv, std::int32_t layer,
                           const Batch& batch, const AttentionParams& p) {
  check_compute("attention: the output", out);
  check_compute("attention: q", q);
  cpu::attention(pool_, out, q, kv, layer, batch, p);
}

void CpuBackend::gather_rows(const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices) {
  cpu::gather_rows(pool_, out, in, indices);
}

void CpuBackend::combine(const Tensor& out, const PartialSums& sums, const Epilogue& epilogue) {
  cpu::combine(pool_, out, sums, epilogue);
}

void CpuBackend::embed_some(const Tensor& out, const Weight& table, const Batch& batch, float scale, TokenId first) {
  cpu::embed_some(pool_, out, table, batch_tokens(batch), scale, first);
}

void CpuBackend::scale_softcap(const Tensor& x, float scale, float softcap) {
  cpu::scale_softcap(pool_, x, scale, softcap);
}

void CpuBackend::host_parallel(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  pool_.for_each_rethrowing(count, body);
}

}  // namespace pagedcore::cpu

namespace pagedcore {

int usable_cpus() { return cpu::usable_cpus(); }

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  check_ranges(options, "CPU option");
  if (options.dtype != DType::f32 && options.dtype != DType::bf16 && options.dtype != DType::i8)
    throw Unsupported(str("the CPU backend computes in f32, bf16 or int8, not in ", info(options.dtype).name));
  const cpu::Isa isa = cpu::parse_isa(options.isa);
  const int threads = options.threads > 0 ? options.threads : cpu::usable_cpus();
  return std::make_unique<cpu::CpuBackend>(options, threads, isa);
}

}  // namespace pagedcore
