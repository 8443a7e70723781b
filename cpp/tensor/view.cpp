#include "pagedcore/tensor.hpp"

namespace pagedcore {
namespace {

// The address `elements` further on: whole blocks of a block format, which the callers of slices keep to.
void* advance(void* data, DType dtype, std::int64_t elements) noexcept {
  const DTypeInfo& type = info(dtype);
  const std::int64_t blocks = elements / type.block_elements;
  return static_cast<std::byte*>(data) + blocks * static_cast<std::int64_t>(type.block_bytes);
}

}  // namespace

Tensor Tensor::slice_rows(std::int64_t first, std::int64_t n) const noexcept {
  return {advance(data, dtype, first * stride), dtype, n, cols, stride};
}

Tensor Tensor::slice_cols(std::int64_t first, std::int64_t n) const noexcept {
  return {advance(data, dtype, first), dtype, rows, n, stride};
}

}  // namespace pagedcore
