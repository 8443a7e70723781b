// Texts and lists from Python. nanobind's own conversions are noexcept, so that where memory is short they end the
// process; these throw std::bad_alloc, which becomes MemoryError. Included instead of nanobind/stl/string.h and
// vector.h. And numbers, among which nanobind counts True and False.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/detail/nb_list.h>

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace pagedcore::bindings {

/// The name of a file. Python spells bytes that are not UTF-8 as halves of surrogate pairs.
struct FilePath {
  std::string bytes;
};

}  // namespace pagedcore::bindings

namespace nanobind::detail {

/// Through a wider type, whose conversion stays nanobind's.
template <class T, class Wide>
struct number_caster {
  NB_TYPE_CASTER(T, const_name<std::is_integral_v<T>>("int", "float"))

  bool from_python(handle source, uint32_t flags, cleanup_list* cleanup) noexcept {
    make_caster<Wide> wide;
    if (PyBool_Check(source.ptr()) || !wide.from_python(source, flags, cleanup)) return false;
    if constexpr (std::is_integral_v<T>) {
      if (!std::in_range<T>(wide.value)) return false;
    }
    value = static_cast<T>(wide.value);
    return true;
  }
  static handle from_cpp(T number, rv_policy policy, cleanup_list* cleanup) noexcept {
    return make_caster<Wide>::from_cpp(static_cast<Wide>(number), policy, cleanup);
  }
};

template <>
struct type_caster<int> : number_caster<int, long long> {};
template <>
struct type_caster<long> : number_caster<long, long long> {};
template <>
struct type_caster<unsigned> : number_caster<unsigned, unsigned long long> {};
template <>
struct type_caster<unsigned long> : number_caster<unsigned long, unsigned long long> {};
template <>
struct type_caster<float> : number_caster<float, long double> {};
template <>
struct type_caster<double> : number_caster<double, long double> {};

template <>
struct type_caster<pagedcore::bindings::FilePath> {
  NB_TYPE_CASTER(pagedcore::bindings::FilePath, const_name("str"))

  bool from_python(handle source, uint32_t, cleanup_list*) {
    if (!PyUnicode_Check(source.ptr())) return false;
    const object bytes = steal(PyUnicode_EncodeFSDefault(source.ptr()));
    char* data = nullptr;
    Py_ssize_t size = 0;
    if (bytes.is_valid()) PyBytes_AsStringAndSize(bytes.ptr(), &data, &size);
    if (data == nullptr && PyErr_ExceptionMatches(PyExc_MemoryError)) raise_python_error();
    if (data == nullptr) PyErr_Clear();  // other surrogates: no file's name
    if (data != nullptr) value.bytes.assign(data, static_cast<std::size_t>(size));
    return data != nullptr;
  }
};

template <>
struct type_caster<std::string> {
  NB_TYPE_CASTER(std::string, const_name("str"))

  bool from_python(handle source, uint32_t, cleanup_list*) {
    if (!PyUnicode_Check(source.ptr())) return false;
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(source.ptr(), &size);
    if (text == nullptr && PyErr_ExceptionMatches(PyExc_MemoryError)) raise_python_error();
    if (text == nullptr) PyErr_Clear();  // a surrogate: no text
    if (text != nullptr) value.assign(text, static_cast<std::size_t>(size));
    return text != nullptr;
  }
  static handle from_cpp(const std::string& value, rv_policy, cleanup_list*) noexcept {
    // A file's name need not be UTF-8: Python gets it as it spells it itself.
    return PyUnicode_DecodeUTF8(value.data(), static_cast<Py_ssize_t>(value.size()), "surrogateescape");
  }
};

template <class T>
struct type_caster<std::vector<T>> : list_caster<std::vector<T>, T> {
  bool from_python(handle source, uint32_t flags, cleanup_list* cleanup) {
    this->value.clear();
    if (PyUnicode_Check(source.ptr()) || PyBytes_Check(source.ptr()) || !PySequence_Check(source.ptr())) return false;
    const object list = steal(PySequence_List(source.ptr()));
    if (!list.is_valid() && PyErr_ExceptionMatches(PyExc_MemoryError)) raise_python_error();
    if (!list.is_valid()) PyErr_Clear();
    if (!list.is_valid()) return false;
    const Py_ssize_t size = PyList_Size(list.ptr());
    this->value.reserve(static_cast<std::size_t>(size));
    flags = flags_for_local_caster<T>(flags);
    make_caster<T> caster;
    for (Py_ssize_t i = 0; i < size; ++i) {
      if (!caster.from_python(PyList_GetItem(list.ptr(), i), flags, cleanup) || !caster.template can_cast<T>())
        return false;
      this->value.push_back(caster.operator cast_t<T>());
    }
    return true;
  }
};

}  // namespace nanobind::detail
