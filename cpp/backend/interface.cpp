#include "pagedcore/backend.hpp"

namespace pagedcore {

// Out of line, so that each interface has one vtable and one type_info across shared objects.
Buffer::~Buffer() = default;
Weight::~Weight() = default;
KvStorage::~KvStorage() = default;
const std::byte* KvStorage::host_view(BlockId) const noexcept { return nullptr; }
Batch::~Batch() = default;
Backend::~Backend() = default;
DType Backend::kv_dtype() const noexcept { return compute_dtype(); }
std::optional<std::size_t> Backend::available_memory() const { return std::nullopt; }
void Backend::reserve(std::size_t) {}

}  // namespace pagedcore
