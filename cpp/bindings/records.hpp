// Plain structs as Python classes: every field is an attribute and a keyword of the constructor.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/values.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/fields.hpp"

namespace pagedcore::bindings {

/// Binds struct T by its list of fields (pagedcore/fields.hpp); those of its parts lie flat among them. A list read
/// from a field is a copy: assign to change it.
template <class T>
class Record {
 public:
  Record(nb::module_& m, const char* name, const char* doc) : cls_(m, name, doc) {
    cls_.def("__repr__", &Record::repr);
    cls_.def("to_dict", &Record::to_dict, nb::sig("def to_dict(self) -> dict[str, typing.Any]"), "All fields by name.");
    cls_.def_static(
        "from_dict", [](const nb::dict& fields) { return nb::type<T>()(**fields); }, "fields"_a,
        nb::sig(str("def from_dict(fields: dict[str, typing.Any]) -> ", name).c_str()));
    cls_.def("__eq__", &Record::equal);
    cls_.attr("__hash__") = nb::none();  // mutable
    cls_.def("__copy__", [](const T& self) { return self; });
    cls_.def(
        "__deepcopy__", [](const T& self, nb::handle) { return self; }, "memo"_a);
    cls_.def("__getstate__", &Record::to_dict);
    cls_.def("__setstate__", &Record::construct<nb::dict>);
    bind_fields();
  }

  nb::class_<T>& python() { return cls_; }

 private:
  void bind_fields() {
    const T defaults{};
    std::string keywords;
    each_field(defaults, [&](const auto& owner, const auto& f) {
      using D = typename std::remove_cvref_t<decltype(f)>::Value;
      if (std::find(names().begin(), names().end(), std::string_view(f.name)) != names().end()) return;
      names().push_back(f.name);
      property(f.name, doc_of(f), PythonType<D>::name());
      const nb::object value = f.zero != nullptr ? nb::none() : to_python(owner.*f.member);
      keywords += str(", ", f.name, ": ", accepted_type(f), " = ", Structure<D> ? "..." : nb::repr(value).c_str());
    });
    const std::string signature = str("def __init__(self, *", keywords, ") -> None");
    cls_.def("__init__", &Record::construct<nb::kwargs>, nb::arg("fields"), nb::sig(signature.c_str()));
  }
  void property(const char* name, const std::string& doc, const std::string& type) {
    const std::string getter = str("def ", name, "(self) -> ", type);
    cls_.def_prop_rw(
        name, [name](nb::handle_t<T> self) { return get_listed(self, name); },
        [name](T& self, nb::handle value) { set_listed(self, name, value); }, nb::arg("value").none(),
        nb::for_getter(nb::sig(getter.c_str())), doc.c_str());
  }
  static nb::object get_listed(nb::handle_t<T> self, std::string_view name) {
    nb::object found;
    each_field(nb::cast<const T&>(self), [&](const auto& owner, const auto& f) {
      if (!found.is_valid() && name == f.name) found = to_python(owner.*f.member, self);
    });
    return found;
  }
  static void set_listed(T& self, std::string_view name, nb::handle value) {
    each_field(self, [&](auto& owner, const auto& f) {
      if (name == f.name) from_python(f, value, owner.*f.member);
    });
  }

  static std::vector<const char*>& names() {
    static std::vector<const char*> list;
    return list;
  }

  static void assign(nb::handle self, const nb::dict& fields) {
    for (const auto& [key, value] : fields) {
      const auto name = nb::cast<std::string>(key);
      if (std::find(names().begin(), names().end(), name) == names().end()) {
        const std::vector<std::string> known(names().begin(), names().end());
        PyErr_Format(PyExc_TypeError, "%U has no field '%s': did you mean '%s'? Its fields: %U",
                     self.type().attr("__name__").ptr(), name.c_str(), nearest_name(name, known).c_str(),
                     nb::str(", ").attr("join")(names()).ptr());
        throw nb::python_error();
      }
      nb::setattr(self, key, value);
    }
  }

  template <class Fields>
  static void construct(nb::pointer_and_handle<T> self, const Fields& fields) {
    new (self.p) T{};
    nb::inst_mark_ready(self.h);  // from here on a failure destroys it
    assign(self.h, fields);
  }

  static nb::dict to_dict(nb::handle_t<T> self) {
    nb::dict fields;
    for (const char* name : names()) fields[name] = self.attr(name);
    return fields;
  }
  static bool equal(nb::handle_t<T> self, nb::handle other) {
    return nb::isinstance<T>(other) && to_dict(self).equal(other.attr("to_dict")());
  }
  static nb::str repr(nb::handle_t<T> self) {
    nb::list parts;
    for (const char* name : names()) parts.append(nb::str("{}={!r}").format(name, self.attr(name)));
    return nb::str("{}({})").format(self.type().attr("__name__"), nb::str(", ").attr("join")(parts));
  }

  nb::class_<T> cls_;
};

}  // namespace pagedcore::bindings
