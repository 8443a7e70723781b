// What a call is told whose arguments do not fit. Every bound function is wrapped by one that takes anything: what the
// function itself refuses is explained by pagedcore/arguments.py, from the signature. So a new function need not be
// named.
#include <string>
#include <vector>

#include "bindings/bindings.hpp"

namespace pagedcore::bindings {
namespace {

bool is_bound(nb::handle value) {
  const auto kind = nb::cast<std::string>(value.type().attr("__name__"));
  return kind == "nb_func" || kind == "nb_method";
}

/// A signature and its doc, as nanobind shows them, with the defaults that Python could evaluate.
struct Shown {
  std::string signature, doc;
};
std::vector<Shown> shown(nb::handle function) {
  std::vector<Shown> all;
  for (const nb::handle overload : nb::iter(function.attr("__nb_signature__"))) {
    std::string text = nb::cast<std::string>(overload[0]);
    const nb::object defaults = overload[2];
    if (!defaults.is_none()) {
      for (std::size_t i = nb::len(defaults); i-- > 0;) {
        const nb::object value = defaults[i];
        const bool is_plain = value.is_none() || nb::isinstance<nb::int_>(value) || nb::isinstance<nb::float_>(value) ||
                              nb::isinstance<nb::str>(value);
        const std::string place = "\\" + std::to_string(i);
        if (const auto at = text.find(place); at != std::string::npos)
          text.replace(at, place.size(), is_plain ? nb::repr(value).c_str() : "...");
      }
    }
    const nb::object doc = overload[1];
    all.push_back({std::move(text), doc.is_none() ? std::string() : nb::cast<std::string>(doc)});
  }
  return all;
}

/// The class whose function it is, or an empty text, and what raises what is to be said of a call.
struct Owner {
  nb::object name, explain;
};

nb::object call(nb::handle function, const Owner& owner, const nb::tuple& args, const nb::dict& keywords) {
  nb::object result = nb::steal(PyObject_Call(function.ptr(), args.ptr(), keywords.ptr()));
  if (result.is_valid()) return result;
  nb::python_error error;
  if (!error.matches(PyExc_TypeError)) throw error;
  constexpr const char* kRefusal = "(): incompatible function arguments.";
  if (std::string_view(error.what()).find(kRefusal) == std::string_view::npos) throw error;
  return owner.explain(function.attr("__nb_signature__"), owner.name, args, keywords);
}

/// Takes the place of `function`: as an attribute of `scope`, or, where there is none, as what it returns.
nb::object wrap(const nb::object& function, const Owner& owner, nb::handle scope, const std::string& name) {
  const bool is_method = nb::cast<std::string>(function.type().attr("__name__")) == "nb_method";
  nb::object made;
  for (const Shown& overload : shown(function)) {  // the first is called; all are shown
    const auto define = [&](const auto& body, auto... extra) {
      const nb::name called(name.c_str());
      const nb::sig signature(overload.signature.c_str());
      if (!scope.is_valid()) {
        made = nb::cpp_function(body, called, signature, overload.doc.c_str(), extra...);
      } else if (overload.doc.empty()) {
        nb::cpp_function(body, nb::scope(scope), called, signature, extra...);
      } else {
        nb::cpp_function(body, nb::scope(scope), called, signature, overload.doc.c_str(), extra...);
      }
    };
    const auto body = [=](const nb::args& args, const nb::kwargs& keywords) -> nb::object {
      return call(function, owner, args, keywords);
    };
    if (is_method) {  // args[0] is self, if there is one
      define(body, nb::is_method());
    } else {
      define(body);
    }
  }
  return made;
}

/// The functions of a module or class, and what lies in its properties and static methods. The fields of records, which
/// can be set, say themselves what does not fit: they are read for every token.
void wrap_all(nb::handle scope, const Owner& owner) {
  const nb::module_ builtins = nb::module_::import_("builtins");
  const nb::object property = builtins.attr("property"), static_method = builtins.attr("staticmethod");
  std::vector<std::pair<std::string, nb::object>> members;
  for (const nb::handle item : nb::iter(scope.attr("__dict__").attr("items")()))
    members.emplace_back(nb::cast<std::string>(item[0]), nb::borrow(item[1]));
  for (const auto& [name, member] : members) {
    if (!is_bound(member) && name.starts_with("__")) continue;
    nb::delattr(scope, name.c_str());  // all of them, in order: so they stay in it
    if (is_bound(member)) {
      wrap(member, owner, scope, name);
      continue;
    }
    nb::object value = member;
    if (nb::isinstance(member, static_method)) {
      const nb::object function = member.attr("__func__");
      if (is_bound(function)) value = static_method(wrap(function, owner, {}, name));
    } else if (nb::isinstance(member, property) && nb::object(member.attr("fset")).is_none()) {
      const nb::object getter = member.attr("fget");
      if (is_bound(getter))
        value = property(wrap(getter, owner, {}, name), nb::none(), nb::none(), member.attr("__doc__"));
    }
    nb::setattr(scope, name.c_str(), value);
  }
}

}  // namespace

void explain_arguments(nb::module_& m) {
  const nb::object explain = nb::module_::import_("pagedcore.arguments").attr("refuse");
  std::vector<nb::object> classes;
  for (const nb::handle value : nb::iter(m.attr("__dict__").attr("values")())) {
    if (PyType_Check(value.ptr())) classes.push_back(nb::borrow(value));
  }
  for (const nb::object& cls : classes) wrap_all(cls, {cls.attr("__name__"), explain});
  wrap_all(m, {nb::str(""), explain});
}

}  // namespace pagedcore::bindings
