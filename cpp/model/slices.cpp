#include "model/slices.hpp"

#include <algorithm>
#include <vector>

#include "pagedcore/error.hpp"

namespace pagedcore {

HostTensor rows_of(const HostTensor& tensor, const Interval& rows) {
  HostTensor part = tensor;
  part.shape[0] = rows.size();
  const std::int64_t width = tensor.rank > 1 ? tensor.count() / tensor.shape[0] : 1;
  const std::size_t first = bytes_of(tensor.dtype, rows.first * width);
  const std::size_t length = bytes_of(tensor.dtype, rows.size() * width);
  if (tensor.source != nullptr) {
    part.offset += first;
    part.length = length;
  } else {
    part.data = tensor.data.subspan(first, length);
  }
  return part;
}

namespace {

bool at_blocks(const HostTensor& matrix, const Interval& columns) {
  const std::int64_t block = info(matrix.dtype).block_elements;
  return columns.first % block == 0 && columns.end % block == 0;
}

}  // namespace

Columns::Columns(const HostTensor& matrix, const Interval& columns)
    : matrix_(matrix),
      columns_(columns),
      dtype_(at_blocks(matrix, columns) ? matrix.dtype : DType::f32),
      row_bytes_(bytes_of(dtype_, columns.size())) {}

HostTensor Columns::tensor() const noexcept {
  HostTensor part{dtype_, {matrix_.rows(), columns_.size()}, 2};
  part.source = this;
  part.length = row_bytes_ * static_cast<std::size_t>(matrix_.rows());
  return part;
}

/// Bytes [from, from + out.size()) of a row.
void Columns::read_row(std::int64_t row, std::size_t from, std::span<std::byte> out) const {
  const std::int64_t first = row * matrix_.cols() + columns_.first;
  if (dtype_ == matrix_.dtype) return read_bytes(matrix_, bytes_of(dtype_, first) + from, out);
  const std::int64_t block = info(matrix_.dtype).block_elements;
  const std::int64_t begin = first / block * block, end = (first + columns_.size() + block - 1) / block * block;
  std::vector<float> numbers(static_cast<std::size_t>(end - begin));
  to_f32(matrix_, begin, numbers);
  const auto bytes = std::as_bytes(std::span(numbers).subspan(static_cast<std::size_t>(first - begin)));
  std::ranges::copy(bytes.subspan(from, out.size()), out.begin());
}

void Columns::read(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const std::size_t row = offset / row_bytes_, from = offset % row_bytes_;
    const std::size_t count = std::min(out.size(), row_bytes_ - from);
    read_row(static_cast<std::int64_t>(row), from, out.first(count));
    out = out.subspan(count);
    offset += count;
  }
}

}  // namespace pagedcore
