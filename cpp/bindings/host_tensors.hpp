// Tensors that cross between Python and C++: any contiguous object in host memory, as bytes of a named type.
#pragma once

#include <nanobind/ndarray.h>
#include <nanobind/stl/variant.h>

#include <string_view>
#include <variant>
#include <vector>

#include "bindings/bindings.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore::bindings {

/// bytes, memoryview, mmap, a numpy array or a CPU torch tensor: read-only, C-contiguous, never copied.
using HostBuffer = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

/// Bytes of a file, read when they are wanted; keeps what they are read from.
struct FileBytes {
  HostTensor bytes;  // u8
  nb::object owner;
};

using TensorBytes = std::variant<FileBytes, HostBuffer>;

/// The tensor that `bytes` hold. Throws InvalidArgument unless their size is what type and shape say.
HostTensor host_tensor(std::string_view dtype, const std::vector<std::int64_t>& shape, const TensorBytes& bytes);

/// (dtype, shape, memoryview of the bytes); the view keeps `owner` alive.
using TensorTuple = nb::typed<nb::tuple, nb::str, nb::typed<nb::tuple, nb::int_, nb::ellipsis>, nb::memoryview>;
TensorTuple to_python(const HostTensor& tensor, nb::handle owner);

/// (dtype, shape, FileBytes).
using StoredTuple = nb::typed<nb::tuple, nb::str, nb::typed<nb::tuple, nb::int_, nb::ellipsis>, FileBytes>;
StoredTuple stored_tuple(const HostTensor& tensor, nb::handle owner);

}  // namespace pagedcore::bindings
