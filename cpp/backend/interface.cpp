#include "base/text.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

// Out of line, so that each interface has one vtable and one type_info across shared objects.
Buffer::~Buffer() = default;
Weight::~Weight() = default;
PackedSize Weight::size() const noexcept { return {bytes(), 0}; }
KvStorage::~KvStorage() = default;
const std::byte* KvStorage::host_view(BlockId) const noexcept { return nullptr; }
Batch::~Batch() = default;
TensorSizes::~TensorSizes() = default;
DType TensorSizes::kv_dtype() const noexcept { return compute_dtype(); }
PackedSize TensorSizes::packed_size(std::span<const HostTensor> parts, const WeightForm& form) const {
  std::int64_t rows = 0;
  for (const HostTensor& part : parts) rows += part.rows();
  return {packed_bytes(form.kind == PackKind::gated ? rows / 2 : rows, parts[0].cols(), form), 0};
}
bool TensorSizes::serves_mixtures() const noexcept { return false; }
bool TensorSizes::serves_sinks() const noexcept { return false; }
Backend::~Backend() = default;
void Backend::route(const Routing&, const Tensor&, const RouterParams&) {
  throw Unsupported(str(describe(), ": mixtures of experts are not served on this device"));
}
void Backend::mixture(const Tensor&, const Tensor&, const Routing&, const Mixture&) {
  throw Unsupported(str(describe(), ": mixtures of experts are not served on this device"));
}
void Backend::combine(const Tensor&, const PartialSums&, const Epilogue&) {
  throw Unsupported(str(describe(), ": a model that ranks share (tensor_parallel) is not served on this device"));
}
void Backend::embed_some(const Tensor&, const Weight&, const Batch&, float, TokenId) {
  throw Unsupported(str(describe(), ": a model that ranks share (tensor_parallel) is not served on this device"));
}
std::optional<std::size_t> Backend::available_memory() const { return std::nullopt; }
void Backend::reserve(std::size_t) {}
void Backend::run_step(const Batch&, const std::function<void()>& operations) { operations(); }
void Backend::sample_tokens(const Tensor&, std::span<const SamplingTask>, std::span<SamplingResult> results) {
  for (SamplingResult& result : results) result = {};
}

}  // namespace pagedcore
