#include "bindings/values.hpp"

#include <cmath>

namespace pagedcore::bindings {

std::string shown(nb::handle value) {
  constexpr std::size_t most = 64;
  std::string text;
  try {
    text = nb::cast<std::string>(nb::repr(value));
  } catch (const nb::python_error&) {  // an int of more digits than Python prints
    return "a huge " + nb::cast<std::string>(value.type().attr("__name__"));
  }
  return text.size() <= most ? text : text.substr(0, most) + "...";
}

void refuse(const char* field, nb::handle value, const std::string& expected) {
  PyErr_SetString(PyExc_TypeError, str(field, " = ", shown(value), " is not ", expected).c_str());
  throw nb::python_error();
}

std::optional<nb::object> whole_number(nb::handle value) {
  if (PyBool_Check(value.ptr()) || !PyIndex_Check(value.ptr())) return {};
  nb::object number = nb::steal(PyNumber_Index(value.ptr()));
  if (!number.is_valid()) throw nb::python_error();
  return number;
}

std::optional<double> real_number(nb::handle value) {
  if (PyBool_Check(value.ptr())) return {};
  const double number = PyFloat_AsDouble(value.ptr());
  if (number != -1.0 || PyErr_Occurred() == nullptr) return number;
  const bool is_huge = PyErr_ExceptionMatches(PyExc_OverflowError) != 0;
  PyErr_Clear();
  if (is_huge) return HUGE_VAL;  // refused for that when it is used
  return {};
}

bool is_list(nb::handle value) {
  return !nb::isinstance<nb::str>(value) && !nb::isinstance<nb::bytes>(value) && nb::hasattr(value, "__iter__");
}

}  // namespace pagedcore::bindings
