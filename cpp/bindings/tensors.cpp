#include <algorithm>
#include <limits>
#include <memory>

#include "bindings/host_tensors.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::bindings {
namespace {

nb::ndarray<nb::numpy, float> as_f32(std::string_view dtype, const std::vector<std::int64_t>& shape,
                                     const HostBuffer& buffer) {
  const HostTensor tensor = host_tensor(dtype, shape, buffer);
  const auto count = static_cast<std::size_t>(tensor.count());
  auto values = std::make_unique<float[]>(count);
  {
    ReleasedGil released;
    to_f32(tensor, 0, {values.get(), count});
  }
  const nb::capsule owner(values.get(), [](void* p) noexcept { delete[] static_cast<float*>(p); });
  const std::vector<std::size_t> extents(shape.begin(), shape.end());
  return {values.release(), extents.size(), extents.data(), owner};
}

}  // namespace

HostTensor host_tensor(std::string_view dtype, const std::vector<std::int64_t>& shape, const HostBuffer& buffer) {
  HostTensor tensor;
  tensor.dtype = dtype_from_name(dtype);
  if (shape.size() > tensor.shape.size())
    throw InvalidArgument("a tensor has at most 4 dimensions, not " + std::to_string(shape.size()));
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) {
    if (extent < 0 || (extent > 0 && count > std::numeric_limits<std::int64_t>::max() / extent))
      throw InvalidArgument("a shape with the extent " + std::to_string(extent) + " is negative or overflows 63 bits");
    count *= extent;
  }
  tensor.rank = static_cast<int>(shape.size());
  std::copy(shape.begin(), shape.end(), tensor.shape.begin());
  const std::size_t expected = bytes_of(tensor.dtype, count);
  if (buffer.nbytes() != expected)
    throw InvalidArgument("the buffer holds " + std::to_string(buffer.nbytes()) + " bytes, but " +
                          std::to_string(count) + " elements of " + std::string(dtype) + " take " +
                          std::to_string(expected));
  tensor.data = {static_cast<const std::byte*>(buffer.data()), expected};
  return tensor;
}

TensorTuple to_python(const HostTensor& tensor, nb::handle owner) {
  nb::list shape;
  for (int i = 0; i < tensor.rank; ++i) shape.append(tensor.shape[static_cast<std::size_t>(i)]);
  const std::size_t bytes = tensor.data.size();
  const nb::ndarray<nb::memview, const std::uint8_t, nb::ndim<1>> view(tensor.data.data(), 1, &bytes, owner);
  return TensorTuple(nb::make_tuple(info(tensor.dtype).name, nb::tuple(shape), view));
}

void bind_tensors(nb::module_& m) {
  nb::class_<DTypeInfo>(m, "DTypeInfo", "An element type: block_elements elements occupy block_bytes bytes.")
      .def_ro("name", &DTypeInfo::name)
      .def_ro("block_elements", &DTypeInfo::block_elements)
      .def_ro("block_bytes", &DTypeInfo::block_bytes);
  m.def(
      "dtype_info", [](std::string_view dtype) { return info(dtype_from_name(dtype)); }, "dtype"_a,
      "Raises Unsupported for an unknown name, listing those that are known.");
  m.def(
      "bytes_of", [](std::string_view dtype, std::int64_t count) { return bytes_of(dtype_from_name(dtype), count); },
      "dtype"_a, "count"_a, "Bytes of `count` consecutive elements.");
  m.def("to_f32", &as_f32, "dtype"_a, "shape"_a, "buffer"_a.noconvert(), "The tensor as a new float32 numpy array.");
}

}  // namespace pagedcore::bindings
