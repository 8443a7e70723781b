#include "pagedcore/backend.hpp"

namespace pagedcore {

// Out of line, so that each interface has one vtable and one type_info across shared objects.
Buffer::~Buffer() = default;
Weight::~Weight() = default;
KvStorage::~KvStorage() = default;
const std::byte* KvStorage::host_view(BlockId) const noexcept { return nullptr; }
Batch::~Batch() = default;
TensorSizes::~TensorSizes() = default;
DType TensorSizes::kv_dtype() const noexcept { return compute_dtype(); }
Backend::~Backend() = default;
std::optional<std::size_t> Backend::available_memory() const { return std::nullopt; }
void Backend::reserve(std::size_t) {}
void Backend::run_step(const Batch&, const std::function<void()>& operations) { operations(); }
void Backend::sample_tokens(const Tensor&, std::span<const SamplingTask>, std::span<SamplingResult> results) {
  for (SamplingResult& result : results) result = {};
}

}  // namespace pagedcore
