// Element types, read-only host tensors (weights on their way in) and views of device memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "pagedcore/export.hpp"
#include "pagedcore/fields.hpp"

namespace pagedcore {

/// Element types. Those from q4_0 on are block formats, which occur in weights only: of GGUF files, then, from int4_g32
/// on, of quantized checkpoints (tensor/blocks.hpp).
enum class DType : std::uint8_t {
  f32,
  bf16,
  f16,
  f64,
  i8,
  u8,
  i16,
  i32,
  i64,
  boolean,
  f8_e4m3,  // without infinities; largest 448
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  mxfp4,      // e2m1 numbers with a power of two for each 32
  int4_g32,   // codes with a scale in f32 and a zero for each 32
  int4_g128,  // for each 128
  int8_g128,
  f8_g128  // e4m3 numbers with a scale in f32 for each 128
};
/// The compute types, as options name them. The first word of each is the one that is written. int8: products of codes,
/// everything else in bf16.
template <>
struct Words<DType> {
  static constexpr Word<DType> list[] = {{DType::f32, "float32"},   {DType::f32, "f32"},   {DType::f32, "fp32"},
                                         {DType::bf16, "bfloat16"}, {DType::bf16, "bf16"}, {DType::f16, "float16"},
                                         {DType::f16, "f16"},       {DType::f16, "fp16"},  {DType::i8, "int8"}};
};

/// Static facts of an element type: a block of `block_elements` consecutive elements occupies `block_bytes` bytes.
struct DTypeInfo {
  std::string_view name;
  std::uint32_t block_elements;
  std::uint32_t block_bytes;
};

PAGEDCORE_API const DTypeInfo& info(DType dtype) noexcept;
/// Throws Unsupported for a name that is not in the table, listing those that are.
PAGEDCORE_API DType dtype_from_name(std::string_view name);
/// Bytes of `count` consecutive elements. Throws InvalidArgument when `count` is negative, overflows, or is not a whole
/// number of the type's blocks.
PAGEDCORE_API std::size_t bytes_of(DType dtype, std::int64_t count);

/// Bytes that are read when they are wanted: those of a file.
class PAGEDCORE_API ByteSource {
 public:
  virtual ~ByteSource();
  /// Fills `out` with the bytes from `offset` on, or throws Io. Any thread may call it, several at a time.
  virtual void read(std::uint64_t offset, std::span<std::byte> out) const = 0;
};

/// A read-only tensor, row-major and contiguous: in host memory, or in a file from which it is read piece by piece.
/// Owns neither.
struct HostTensor {
  DType dtype = DType::f32;
  std::array<std::int64_t, 4> shape{};  // [rank] extents, outermost first
  int rank = 0;
  std::span<const std::byte> data = {};  // where it is in memory; empty when `source` has it
  const ByteSource* source = nullptr;    // not null: bytes [offset, offset + length) of it are the tensor
  std::uint64_t offset = 0;
  std::size_t length = 0;

  std::size_t size_bytes() const noexcept { return source == nullptr ? data.size() : length; }
  std::int64_t rows() const noexcept {
    return rank <= 1 ? 1 : count() / cols();
  }  // all but the last extent, multiplied
  std::int64_t cols() const noexcept { return rank == 0 ? 1 : shape[static_cast<std::size_t>(rank - 1)]; }
  std::int64_t count() const noexcept {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[static_cast<std::size_t>(i)];
    return n;
  }
};

/// Bytes [first, first + out.size()) of `tensor`, wherever it is. Throws InvalidArgument when they lie outside it, Io
/// when its file cannot be read.
PAGEDCORE_API void read_bytes(const HostTensor& tensor, std::size_t first, std::span<std::byte> out);

/// Writes elements [first, first + out.size()) of `tensor` as f32. `first` and the size must be whole blocks of the
/// tensor's type and inside it (InvalidArgument otherwise). Throws Io when its file cannot be read. Deterministic; safe
/// to call from several threads.
PAGEDCORE_API void to_f32(const HostTensor& tensor, std::int64_t first, std::span<float> out);

/// A view of a matrix in device memory, row-major. The address means something to its backend only.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;  // elements from one row to the next, >= cols

  /// The first `n` rows.
  Tensor head(std::int64_t n) const noexcept { return {data, dtype, n, cols, stride}; }
  /// One row without gaps as `n` of equal length.
  Tensor as_rows(std::int64_t n) const noexcept { return {data, dtype, n, cols / n, cols / n}; }
  /// Rows [first, first + n).
  PAGEDCORE_API Tensor slice_rows(std::int64_t first, std::int64_t n) const noexcept;
  /// Columns [first, first + n) of every row.
  PAGEDCORE_API Tensor slice_cols(std::int64_t first, std::int64_t n) const noexcept;
};

}  // namespace pagedcore
