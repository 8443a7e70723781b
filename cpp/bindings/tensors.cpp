#include <algorithm>
#include <limits>
#include <memory>

#include "bindings/host_tensors.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/input_file.hpp"

namespace pagedcore::bindings {
namespace {

nb::ndarray<nb::numpy, float> as_f32(std::string_view dtype, const std::vector<std::int64_t>& shape,
                                     const TensorBytes& buffer) {
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

HostTensor host_tensor(std::string_view dtype, const std::vector<std::int64_t>& shape, const TensorBytes& bytes) {
  HostTensor tensor;
  if (const auto* file = std::get_if<FileBytes>(&bytes)) {
    tensor = file->bytes;
  } else {
    const auto& buffer = std::get<HostBuffer>(bytes);
    tensor.data = {static_cast<const std::byte*>(buffer.data()), buffer.nbytes()};
  }
  tensor.dtype = dtype_from_name(dtype);
  if (shape.size() > tensor.shape.size())
    throw InvalidArgument("a tensor has at most " + std::to_string(tensor.shape.size()) + " dimensions, not " +
                          std::to_string(shape.size()));
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) {
    if (extent < 0 || (extent > 0 && count > std::numeric_limits<std::int64_t>::max() / extent))
      throw InvalidArgument("a shape with the extent " + std::to_string(extent) + " is negative or overflows 63 bits");
    count *= extent;
  }
  tensor.rank = static_cast<int>(shape.size());
  std::copy(shape.begin(), shape.end(), tensor.shape.begin());
  const std::size_t expected = bytes_of(tensor.dtype, count);
  if (tensor.size_bytes() != expected)
    throw InvalidArgument("the buffer holds " + std::to_string(tensor.size_bytes()) + " bytes, but " +
                          std::to_string(count) + " elements of " + std::string(dtype) + " take " +
                          std::to_string(expected));
  return tensor;
}

namespace {

nb::tuple shape_tuple(const HostTensor& tensor) {
  nb::list shape;
  for (int i = 0; i < tensor.rank; ++i) shape.append(tensor.shape[static_cast<std::size_t>(i)]);
  return nb::tuple(shape);
}

using View = nb::ndarray<nb::memview, const std::uint8_t, nb::ndim<1>>;

/// The bytes where they lie, or, of a file that is not mapped, in memory of the view's own.
View view_of(const HostTensor& tensor, nb::handle owner) {
  const std::size_t bytes = tensor.size_bytes();
  if (tensor.source == nullptr) return {tensor.data.data(), 1, &bytes, owner};
  auto memory = std::make_unique_for_overwrite<std::byte[]>(bytes);
  {
    const ReleasedGil released;
    read_bytes(tensor, 0, {memory.get(), bytes});
  }
  const nb::capsule kept(memory.get(), [](void* p) noexcept { delete[] static_cast<std::byte*>(p); });
  return {memory.release(), 1, &bytes, kept};
}

}  // namespace

TensorTuple to_python(const HostTensor& tensor, nb::handle owner) {
  return TensorTuple(nb::make_tuple(info(tensor.dtype).name, shape_tuple(tensor), view_of(tensor, owner)));
}

StoredTuple stored_tuple(const HostTensor& tensor, nb::handle owner) {
  return StoredTuple(
      nb::make_tuple(info(tensor.dtype).name, shape_tuple(tensor), FileBytes{tensor, nb::borrow(owner)}));
}

namespace {

void bind_files(nb::module_& m) {
  nb::class_<FileBytes>(m, "FileBytes", "Bytes of a file, read when they are wanted; they keep it open.")
      .def_prop_ro("nbytes", [](const FileBytes& self) { return self.bytes.size_bytes(); })
      .def(
          "read", [](const FileBytes& self) { return view_of(self.bytes, self.owner); },
          nb::sig("def read(self) -> memoryview"), "All of them. Raises Io when the file has changed.")
      .def(
          "part",
          [](const FileBytes& self, std::size_t first, std::size_t length) {
            HostTensor bytes = self.bytes;
            if (first > bytes.size_bytes() || length > bytes.size_bytes() - first)
              throw InvalidArgument("bytes [" + std::to_string(first) + ", " + std::to_string(first) + " + " +
                                    std::to_string(length) + ") lie outside the " + std::to_string(bytes.size_bytes()) +
                                    " that there are");
            if (bytes.source == nullptr) bytes.data = bytes.data.subspan(first, length);
            bytes.offset += first;
            bytes.length = length;
            return FileBytes{bytes, self.owner};
          },
          "first"_a, "length"_a, "Some of them, not read yet.");
  nb::class_<InputFile>(m, "InputFile",
                        "A regular file, read by pread; with mmap=True mapped, which trusts whoever may write to it.")
      .def(
          "__init__", [](InputFile* self, const FilePath& path, bool mmap) { new (self) InputFile(path.bytes, mmap); },
          "path"_a, "mmap"_a = false, release_gil())
      .def_prop_ro("size", &InputFile::size, "Bytes, when it was opened.")
      .def(
          "part",
          [](nb::handle_t<InputFile> self, std::uint64_t offset, std::uint64_t length) {
            return FileBytes{nb::cast<const InputFile&>(self).part(offset, length), nb::borrow(self)};
          },
          "offset"_a, "length"_a, "Some of its bytes, not read yet.");
}

}  // namespace

void bind_tensors(nb::module_& m) {
  bind_files(m);
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
