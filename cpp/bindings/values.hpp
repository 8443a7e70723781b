// The value of one listed field to Python and back, and its type as Python writes it.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/field_lists.hpp"
#include "bindings/bindings.hpp"

namespace pagedcore::bindings {

/// Raises TypeError: `field` = value is not `expected`.
[[noreturn]] void refuse(const char* field, nb::handle value, const std::string& expected);

/// Of a Python str. Throws InvalidArgument for one that has no UTF-8.
std::string text_of(const char* field, nb::handle value);

struct Facts;
/// The value as an int or a float of Python's. Raises TypeError for what is no such number, True and False among them.
nb::object whole_number(const Facts& f, nb::handle value);
double real_number(const Facts& f, nb::handle value);

template <class D>
concept Structure = std::is_class_v<D> && nb::detail::is_base_caster_v<nb::detail::make_caster<D>>;

template <class D>
inline constexpr bool Structures = false;
template <class D>
inline constexpr bool Structures<std::vector<D>> = Structure<D>;

/// The value of an enum that a word names.
template <Named E>
E word(const char* name, std::string_view text) {
  E value{};
  from_text(name, text, value);
  return value;
}

/// What reading a field gives.
template <class D>
struct PythonType {
  static std::string name() {
    if constexpr (std::is_same_v<D, bool>) return "bool";
    if constexpr (std::is_floating_point_v<D>) return "float";
    if constexpr (std::is_same_v<D, std::string>) return "str";
    if constexpr (Structure<D>) return nb::cast<std::string>(nb::type<D>().attr("__name__"));
    return "int";
  }
};
template <Named D>
struct PythonType<D> {
  static std::string name(bool with_synonyms = false) {
    std::string words;
    const Word<D>* before = nullptr;
    for (const Word<D>& word : Words<D>::list) {
      if (with_synonyms || before == nullptr || before->value != word.value)
        words.append(words.empty() ? "'" : ", '").append(word.text).append("'");
      before = &word;
    }
    return "typing.Literal[" + words + "]";
  }
};
template <class D>
struct PythonType<std::vector<D>> {
  static std::string name() { return "list[" + PythonType<D>::name() + "]"; }
};
template <class D>
struct PythonType<std::optional<D>> {
  static std::string name() { return PythonType<D>::name() + " | None"; }
};
template <class A, class B>
struct PythonType<std::pair<A, B>> {
  static std::string name() { return "tuple[" + PythonType<A>::name() + ", " + PythonType<B>::name() + "]"; }
};

/// What a field says of its values, apart from their type.
struct Facts {
  const char* name;
  std::string range;
  const char* zero = nullptr;
  const char* hint = nullptr;
  Unit unit = Unit::none;

  /// Of an element of a list.
  Facts element() const { return {name, range}; }
};
template <class F>
Facts facts_of(const F& f) {
  return {f.name, range_text(f.range), f.zero, f.hint, f.unit};
}

/// What may be assigned to a field: None where 0 or no elements stand for something, sizes as text. `type` is what
/// reading it gives.
std::string accepted_type(const Facts& f, std::string type);
/// What help() says of a field.
std::string doc_of(const Facts& f, const char* doc);

/// A structure as an object of its own. nanobind would copy it where nothing may throw.
template <class D>
nb::object copied(const D& value) {
  nb::object copy = nb::inst_alloc(nb::type<D>());
  if (!copy.is_valid()) throw nb::python_error();
  new (nb::inst_ptr<D>(copy)) D(value);
  nb::inst_mark_ready(copy);
  return copy;
}

/// An enum is its first word, a structure changes in place, a list is a copy.
template <class D>
nb::object to_python(const D& value, nb::handle parent = {}) {
  if constexpr (Named<D>) {
    return nb::cast(to_text(value));
  } else if constexpr (Structures<D>) {
    nb::object list = nb::steal(PyList_New(0));
    if (!list.is_valid()) throw nb::python_error();
    for (const auto& element : value)
      if (PyList_Append(list.ptr(), copied(element).ptr()) != 0) throw nb::python_error();
    return list;
  } else if constexpr (Structure<D>) {
    if (parent.is_valid()) return nb::cast(&value, nb::rv_policy::reference_internal, parent);
    return copied(value);
  } else {
    return nb::cast(value);
  }
}

/// Raises ValueError: a number that the field's type or its limits do not admit.
[[noreturn]] void refuse_range(const Facts& f, nb::handle value, const std::string& type_range);
/// The number of a size: bytes, or a text such as "1.5GiB".
nb::object size_of(const Facts& f, nb::handle value);
/// The elements of a list; none of None.
std::vector<nb::object> elements_of(const Facts& f, nb::handle value);

template <class D>
void from_python(const Facts& f, nb::handle value, D& out);

template <class D>
void number_from_python(const Facts& f, nb::handle value, D& out) {
  if constexpr (std::is_floating_point_v<D>) {
    out = static_cast<D>(real_number(f, value));
  } else {
    const nb::object number = f.unit == Unit::bytes ? size_of(f, value) : whole_number(f, value);
    if (!nb::try_cast(number, out)) refuse_range(f, value, type_range_text<D>());
  }
}
template <class E>
void list_from_python(const Facts& f, nb::handle value, std::vector<E>& out) {
  std::vector<E> list;
  const Facts element = f.element();
  for (const nb::object& item : elements_of(f, value)) from_python(element, item, list.emplace_back());
  out = std::move(list);
}
template <class A, class B>
void pair_from_python(const Facts& f, nb::handle value, std::pair<A, B>& out) {
  std::pair<nb::object, nb::object> both;
  if (!nb::try_cast(value, both)) refuse(f.name, value, "a pair");
  from_python(f.element(), both.first, out.first);
  from_python(f.element(), both.second, out.second);
}

/// Takes only what the field can hold; whether it lies within its limits is checked when the struct is used.
template <class D>
void from_python(const Facts& f, nb::handle value, D& out) {
  if (f.zero != nullptr && value.is_none()) return void(out = D{});
  if constexpr (Named<D>) {
    if (!nb::isinstance<nb::str>(value)) refuse(f.name, value, "one of the texts " + all_words<D>());
    from_text(f.name, text_of(f.name, value), out);
  } else if constexpr (Number<D>) {
    number_from_python(f, value, out);
  } else if constexpr (Id<D>) {
    std::underlying_type_t<D> number{};
    number_from_python(f, value, number);
    out = D{number};
  } else if constexpr (std::is_same_v<D, std::optional<element_of<D>>>) {
    if (value.is_none()) return out.reset();
    element_of<D> element{};
    from_python(f.element(), value, element);
    out = std::move(element);
  } else if constexpr (requires { list_from_python(f, value, out); }) {
    list_from_python(f, value, out);
  } else if constexpr (requires { pair_from_python(f, value, out); }) {
    pair_from_python(f, value, out);
  } else if constexpr (std::is_same_v<D, bool>) {
    if (!nb::try_cast(value, out)) refuse(f.name, value, "True or False");
  } else {  // a text or a structure
    const nb::object path = f.unit == Unit::path ? nb::steal(PyOS_FSPath(value.ptr())) : nb::borrow(value);
    if (!path.is_valid()) throw nb::python_error();
    if constexpr (Structure<D>) {
      if (!nb::isinstance<D>(path)) refuse(f.name, value, "a " + PythonType<D>::name());
      out = *nb::inst_ptr<D>(path);
    } else {
      if (!nb::isinstance<nb::str>(path)) refuse(f.name, value, "a " + PythonType<D>::name());
      FilePath file;
      if (f.unit == Unit::path && nb::try_cast(path, file)) return void(out = std::move(file.bytes));
      out = text_of(f.name, path);
    }
  }
}

}  // namespace pagedcore::bindings
