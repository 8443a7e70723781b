// Parts of the tensors of a checkpoint, of which only they are read.
#pragma once

#include <memory>

#include "model/shard.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore {

/// Consecutive rows of a matrix, or elements of a vector: a view.
HostTensor rows_of(const HostTensor& tensor, const Interval& rows);

/// Consecutive columns of a matrix. Where they do not begin and end with blocks of its type they are f32 numbers, the
/// same ones.
class Columns final : public ByteSource {
 public:
  /// What it refers to must outlive it.
  Columns(const HostTensor& matrix, const Interval& columns);
  /// The columns as a matrix, which reads from this object.
  HostTensor tensor() const noexcept;
  void read(std::uint64_t offset, std::span<std::byte> out) const override;

 private:
  void read_row(std::int64_t row, std::size_t from, std::span<std::byte> out) const;

  HostTensor matrix_;
  Interval columns_;
  DType dtype_;
  std::size_t row_bytes_;
};

}  // namespace pagedcore
