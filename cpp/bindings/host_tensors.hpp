// Tensors that cross between Python and C++: any contiguous object in host memory, as bytes of a named type.
#pragma once

#include <nanobind/ndarray.h>

#include <string_view>
#include <vector>

#include "bindings/bindings.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore::bindings {

/// bytes, memoryview, mmap, a numpy array or a CPU torch tensor: read-only, C-contiguous, never copied.
using HostBuffer = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

/// The tensor that `buffer` holds. Throws InvalidArgument unless its size is what type and shape say.
HostTensor host_tensor(std::string_view dtype, const std::vector<std::int64_t>& shape, const HostBuffer& buffer);

/// (dtype, shape, memoryview of the bytes); the view keeps `owner` alive.
using TensorTuple = nb::typed<nb::tuple, nb::str, nb::typed<nb::tuple, nb::int_, nb::ellipsis>, nb::memoryview>;
TensorTuple to_python(const HostTensor& tensor, nb::handle owner);

}  // namespace pagedcore::bindings
