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
/// The value as a message shows it, cut when it is long.
std::string shown(nb::handle value);
/// The value as an int or a float of Python's; none for what is no such number, True and False among them.
std::optional<nb::object> whole_number(nb::handle value);
std::optional<double> real_number(nb::handle value);
/// Whether it can be walked and is no text.
bool is_list(nb::handle value);

template <class D>
concept Structure = std::is_class_v<D> && nb::detail::is_base_caster_v<nb::detail::make_caster<D>>;

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

/// What may be assigned to a field: None where 0 or no elements stand for something, sizes as text.
template <class F>
std::string accepted_type(const F& f) {
  using D = typename F::Value;
  if constexpr (Named<D>) return PythonType<D>::name(true);
  std::string type = PythonType<D>::name();
  if (type.starts_with("list[")) return "collections.abc.Sequence" + type.substr(4) + " | None";
  if (f.unit == Unit::bytes) type += " | str";
  if (f.unit == Unit::path) type += " | os.PathLike[str]";
  if (f.zero != nullptr) type += " | None";
  return type;
}

/// What help() says of a field.
template <class F>
std::string doc_of(const F& f) {
  std::string doc = f.doc;
  const auto sentence = [&](std::string text) {
    if (!text.empty()) doc.append(doc.empty() ? "" : " ").append(text).append(".");
  };
  if (f.zero != nullptr) sentence(str("None: ", f.zero));
  if (f.hint != nullptr) sentence(f.hint);
  std::string range = range_text(f.range);
  if (range.starts_with('a')) range[0] = 'A';  // at least, above
  sentence(range.starts_with('A') || range.empty() ? range : "In " + range);
  return doc;
}

/// An enum is its first word, a structure changes in place, a list is a copy.
template <class D>
nb::object to_python(const D& value, nb::handle parent = {}) {
  if constexpr (Named<D>) {
    return nb::cast(to_text(value));
  } else if constexpr (Structure<D>) {
    if (parent.is_valid()) return nb::cast(&value, nb::rv_policy::reference_internal, parent);
    return nb::cast(value);
  } else {
    return nb::cast(value);
  }
}

template <class O, class D>
void from_python(const Field<O, D>& f, nb::handle value, D& out);

template <class O, class D>
void number_from_python(const Field<O, D>& f, nb::handle value, D& out) {
  const char* none = f.zero != nullptr ? " or None" : "";
  if constexpr (std::is_floating_point_v<D>) {
    const std::optional<double> number = real_number(value);
    if (!number) refuse(f.name, value, str("a number", none));
    out = static_cast<D>(*number);
  } else {
    if (f.unit == Unit::bytes && nb::isinstance<nb::str>(value))
      return void(out = static_cast<D>(bytes_from_text(f.name, nb::cast<std::string>(value))));
    const std::optional<nb::object> number = whole_number(value);
    if (!number) refuse(f.name, value, str(f.unit == Unit::bytes ? "a size" : "a whole number", none));
    if (!nb::try_cast(*number, out)) throw InvalidArgument(out_of_range(f, shown(value), "None"));
  }
}

/// A list, or None for an empty one. Its elements are fields of the same name.
template <class O, class E>
void list_from_python(const Field<O, std::vector<E>>& f, nb::handle value, std::vector<E>& out) {
  std::vector<E> list;
  if (!value.is_none()) {
    if (!is_list(value)) refuse(f.name, value, "a list");
    const Field<O, E> element{f.name, nullptr, f.doc, f.range};
    for (const nb::handle item : nb::iter(value)) from_python(element, item, list.emplace_back());
  }
  out = std::move(list);
}
template <class O, class A, class B>
void pair_from_python(const Field<O, std::pair<A, B>>& f, nb::handle value, std::pair<A, B>& out) {
  std::pair<nb::object, nb::object> both;
  if (!nb::try_cast(value, both)) refuse(f.name, value, "a pair");
  from_python(Field<O, A>{f.name, nullptr, f.doc}, both.first, out.first);
  from_python(Field<O, B>{f.name, nullptr, f.doc}, both.second, out.second);
}

/// Takes only what `f` can hold; whether it lies within the field's limits is checked when the struct is used.
template <class O, class D>
void from_python(const Field<O, D>& f, nb::handle value, D& out) {
  if (f.zero != nullptr && value.is_none()) return void(out = D{});
  if constexpr (Named<D>) {
    if (!nb::isinstance<nb::str>(value)) refuse(f.name, value, "one of the texts " + all_words<D>());
    from_text(f.name, nb::cast<std::string>(value), out);
  } else if constexpr (Number<D>) {
    number_from_python(f, value, out);
  } else if constexpr (Id<D>) {
    std::underlying_type_t<D> number{};
    number_from_python(Field<O, decltype(number)>{f.name, nullptr, f.doc}, value, number);
    out = D{number};
  } else if constexpr (std::is_same_v<D, std::optional<element_of<D>>>) {
    if (value.is_none()) return out.reset();
    element_of<D> element{};
    from_python(Field<O, element_of<D>>{f.name, nullptr, f.doc, f.range}, value, element);
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
    if (!nb::try_cast(path, out)) refuse(f.name, value, "a " + PythonType<D>::name());
  }
}

}  // namespace pagedcore::bindings
