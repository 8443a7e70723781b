#include <algorithm>
#include <array>
#include <cstring>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/tensor.hpp"
#include "tensor/blocks.hpp"
#include "tensor/float16.hpp"

namespace pagedcore {
namespace {

// Tensors of a file may start at any byte, so elements are loaded by memcpy; compilers turn these loops into vector
// code all the same.
template <class T, class Convert>
void convert_each(const std::byte* in, std::span<float> out, Convert convert) {
  const auto count = out.size();
  float* const __restrict to = out.data();
  for (std::size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, in + i * sizeof(T), sizeof(T));
    to[i] = convert(value);
  }
}

template <class T>
void convert_numbers(const std::byte* in, std::span<float> out) {
  convert_each<T>(in, out, [](T value) { return static_cast<float>(value); });
}

template <class Block>
void decode_blocks(const std::byte* in, std::span<float> out) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(in);
  for (std::size_t i = 0; i < out.size() / Block::elements; ++i) {
    Block::decode(bytes + i * Block::bytes, out.data() + i * Block::elements);
  }
}

void convert(DType dtype, const std::byte* in, std::span<float> out) {
  switch (dtype) {
    case DType::f32:
      std::memcpy(out.data(), in, out.size_bytes());
      return;
    case DType::bf16:
      return convert_each<std::uint16_t>(in, out, bf16_to_f32);
    case DType::f16:
      return convert_each<std::uint16_t>(in, out, f16_to_f32);
    case DType::f64:
      return convert_numbers<double>(in, out);
    case DType::i8:
      return convert_numbers<std::int8_t>(in, out);
    case DType::u8:
      return convert_numbers<std::uint8_t>(in, out);
    case DType::i16:
      return convert_numbers<std::int16_t>(in, out);
    case DType::i32:
      return convert_numbers<std::int32_t>(in, out);
    case DType::i64:
      return convert_numbers<std::int64_t>(in, out);
    case DType::boolean:
      return convert_each<std::uint8_t>(in, out, [](std::uint8_t value) { return value != 0 ? 1.0f : 0.0f; });
    case DType::f8_e4m3:
      return convert_each<std::uint8_t>(in, out, f8_e4m3_to_f32);
    case DType::q4_0:
      return decode_blocks<blocks::Q4_0>(in, out);
    case DType::q4_1:
      return decode_blocks<blocks::Q4_1>(in, out);
    case DType::q5_0:
      return decode_blocks<blocks::Q5_0>(in, out);
    case DType::q5_1:
      return decode_blocks<blocks::Q5_1>(in, out);
    case DType::q8_0:
      return decode_blocks<blocks::Q8_0>(in, out);
    case DType::q2_k:
      return decode_blocks<blocks::Q2_K>(in, out);
    case DType::q3_k:
      return decode_blocks<blocks::Q3_K>(in, out);
    case DType::q4_k:
      return decode_blocks<blocks::Q4_K>(in, out);
    case DType::q5_k:
      return decode_blocks<blocks::Q5_K>(in, out);
    case DType::q6_k:
      return decode_blocks<blocks::Q6_K>(in, out);
    case DType::mxfp4:
      return decode_blocks<blocks::Mxfp4>(in, out);
    case DType::int4_g32:
      return decode_blocks<blocks::Int4<32>>(in, out);
    case DType::int4_g128:
      return decode_blocks<blocks::Int4<128>>(in, out);
    case DType::int8_g128:
      return decode_blocks<blocks::Int8>(in, out);
    case DType::f8_g128:
      return decode_blocks<blocks::Float8>(in, out);
  }
  throw Unsupported(str("element type ", static_cast<int>(dtype), " is unknown"));
}

/// From a file: as much at a time as fits a buffer on the stack.
void convert_in_pieces(const HostTensor& tensor, std::size_t first, std::span<float> out) {
  std::array<std::byte, 16384> piece;  // holds at least one block of every type
  const DTypeInfo& type = info(tensor.dtype);
  const std::size_t elements = piece.size() / type.block_bytes * type.block_elements;
  for (; !out.empty(); out = out.subspan(std::min(elements, out.size()))) {
    const std::span<float> now = out.first(std::min(elements, out.size()));
    const std::size_t bytes = now.size() / type.block_elements * type.block_bytes;
    read_bytes(tensor, first, std::span(piece).first(bytes));
    convert(tensor.dtype, piece.data(), now);
    first += bytes;
  }
}

}  // namespace

ByteSource::~ByteSource() = default;

void read_bytes(const HostTensor& tensor, std::size_t first, std::span<std::byte> out) {
  if (first > tensor.size_bytes() || out.size() > tensor.size_bytes() - first)
    throw InvalidArgument(str("bytes [", first, ", ", first, " + ", out.size(), ") lie outside a tensor of ",
                              tensor.size_bytes(), " bytes"));
  if (out.empty()) return;
  if (tensor.source != nullptr)
    tensor.source->read(tensor.offset + first, out);
  else
    std::memcpy(out.data(), tensor.data.data() + first, out.size());
}

void to_f32(const HostTensor& tensor, std::int64_t first, std::span<float> out) {
  const auto size = static_cast<std::int64_t>(out.size());
  if (first < 0 || first > tensor.count() || size > tensor.count() - first) {
    throw InvalidArgument(
        str("elements [", first, ", ", first, " + ", size, ") lie outside a tensor of ", tensor.count(), " elements"));
  }
  const std::size_t offset = bytes_of(tensor.dtype, first);
  const std::size_t length = bytes_of(tensor.dtype, size);
  if (offset + length > tensor.size_bytes()) {
    throw InvalidArgument(str("elements [", first, ", ", first + size, ") of ", info(tensor.dtype).name,
                              " end at byte ", offset + length, ", but the tensor's data has ", tensor.size_bytes(),
                              " bytes"));
  }
  if (out.empty()) return;
  if (tensor.source != nullptr)
    convert_in_pieces(tensor, offset, out);
  else
    convert(tensor.dtype, tensor.data.data() + offset, out);
}

}  // namespace pagedcore
