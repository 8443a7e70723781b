// Memory of a native object as Python's memoryview.
#pragma once

#include <nanobind/ndarray.h>

#include <vector>

#include "bindings/bindings.hpp"

namespace pagedcore::bindings {

/// The bytes of a list, not copied: the view keeps `owner` alive, which holds it and must not change it.
template <class T>
nb::object bytes_of(const std::vector<T>& values, nb::handle owner) {
  const std::size_t bytes = values.size() * sizeof(T);
  if (bytes == 0) return nb::steal(PyMemoryView_FromObject(nb::bytes("", 0).ptr()));
  return nb::cast(nb::ndarray<nb::memview, const std::uint8_t, nb::ndim<1>>(values.data(), 1, &bytes, owner));
}

}  // namespace pagedcore::bindings
