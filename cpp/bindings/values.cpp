#include "bindings/values.hpp"

#include <cmath>

namespace pagedcore::bindings {
namespace {

/// The value as a message shows it, cut when it is long.
std::string shown(nb::handle value) {
  constexpr std::size_t most = 64;
  std::string text;
  try {
    const nb::object spelled = nb::repr(value);
    if (!nb::try_cast(spelled, text))  // half of a surrogate pair
      text = nb::cast<std::string>(nb::steal(PyObject_ASCII(spelled.ptr())));
  } catch (const nb::python_error&) {  // an int of more digits than Python prints
    return "a huge " + nb::cast<std::string>(value.type().attr("__name__"));
  }
  return text.size() <= most ? text : text.substr(0, most) + "...";
}

const char* or_none(const Facts& f) { return f.zero != nullptr ? " or None" : ""; }

}  // namespace

void refuse(const char* field, nb::handle value, const std::string& expected) {
  PyErr_SetString(PyExc_TypeError, str(field, " = ", shown(value), " is not ", expected).c_str());
  throw nb::python_error();
}

std::string text_of(const char* field, nb::handle value) {
  std::string text;
  if (!nb::try_cast(value, text))
    throw InvalidArgument(str(field, " = ", shown(value), " is not valid Unicode: it holds half of a surrogate pair"));
  return text;
}

void refuse_range(const Facts& f, nb::handle value, const std::string& type_range) {
  throw InvalidArgument(
      to_text(OutOfRange{f.name, shown(value), f.range.empty() ? type_range : f.range, f.zero, f.hint}));
}

nb::object whole_number(const Facts& f, nb::handle value) {
  if (PyBool_Check(value.ptr()) || !PyIndex_Check(value.ptr()))
    refuse(f.name, value, f.unit == Unit::bytes ? kSizeText : str("a whole number", or_none(f)));
  nb::object number = nb::steal(PyNumber_Index(value.ptr()));
  if (!number.is_valid()) throw nb::python_error();
  return number;
}

nb::object size_of(const Facts& f, nb::handle value) {
  if (!nb::isinstance<nb::str>(value)) return whole_number(f, value);
  return nb::int_(bytes_from_text(f.name, text_of(f.name, value)));
}

double real_number(const Facts& f, nb::handle value) {
  const double number = PyBool_Check(value.ptr()) ? 0.0 : PyFloat_AsDouble(value.ptr());
  if (PyErr_Occurred() != nullptr) {
    const bool is_huge = PyErr_ExceptionMatches(PyExc_OverflowError) != 0;
    PyErr_Clear();
    if (is_huge) return HUGE_VAL;  // refused for that when it is used
  } else if (!PyBool_Check(value.ptr())) {
    return number;
  }
  refuse(f.name, value, str("a number", or_none(f)));
}

std::vector<nb::object> elements_of(const Facts& f, nb::handle value) {
  std::vector<nb::object> elements;
  if (value.is_none()) return elements;
  if (nb::isinstance<nb::str>(value) || nb::isinstance<nb::bytes>(value) || !nb::hasattr(value, "__iter__"))
    refuse(f.name, value, "a list");
  for (const nb::handle item : nb::iter(value)) elements.push_back(nb::borrow(item));
  return elements;
}

std::string accepted_type(const Facts& f, std::string type) {
  if (type.starts_with("list[")) return "collections.abc.Sequence" + type.substr(4) + " | None";
  if (f.unit == Unit::bytes) type += " | str";
  if (f.unit == Unit::path) type += " | os.PathLike[str]";
  if (f.zero != nullptr) type += " | None";
  return type;
}

std::string doc_of(const Facts& f, const char* doc) {
  std::string text = doc;
  const auto sentence = [&](const std::string& more) {
    if (!more.empty()) text.append(text.empty() ? "" : " ").append(more).append(".");
  };
  if (f.zero != nullptr) sentence(str("None: ", f.zero));
  if (f.hint != nullptr) sentence(f.hint);
  std::string range = f.range;
  if (range.starts_with('a')) range[0] = 'A';  // at least, above
  sentence(range.starts_with('A') || range.empty() ? range : "In " + range);
  return text;
}

}  // namespace pagedcore::bindings
