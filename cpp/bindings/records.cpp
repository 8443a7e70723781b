#include "bindings/records.hpp"

#include <algorithm>

#include "base/field_lists.hpp"

namespace pagedcore::bindings {
namespace {

/// A method or a property may be called with anything.
std::byte* place_of(const RecordType& type, nb::handle self) {
  if (!nb::isinstance(self, type.cls)) refuse("self", self, nb::cast<std::string>(nb::repr(type.cls)));
  if (!nb::inst_ready(self)) {  // made by __new__() alone
    PyErr_SetString(PyExc_TypeError,
                    str(nb::cast<std::string>(type.cls.attr("__name__")), " was not initialized: call it").c_str());
    throw nb::python_error();
  }
  return nb::inst_ptr<std::byte>(self);
}

nb::object get(const RecordType& type, const Member& member, nb::handle self) {
  return member.get(place_of(type, self) + member.places.front(), self);
}
void set(const RecordType& type, const Member& member, nb::handle self, nb::handle value) {
  std::byte* record = place_of(type, self);
  for (const std::ptrdiff_t place : member.places) member.set(member.facts, value, record + place);
}

void construct_record(RecordType& type, nb::handle self, const nb::dict& fields) {
  if (!nb::isinstance(self, type.cls)) place_of(type, self);  // throws
  if (nb::inst_ready(self)) {
    PyErr_SetString(PyExc_TypeError, "the record is initialized already: assign to its fields, or make another one");
    throw nb::python_error();
  }
  type.construct(nb::inst_ptr<void>(self));
  nb::inst_mark_ready(self);  // from here on a failure destroys it
  for (const auto& [key, value] : fields) {
    if (!nb::isinstance<nb::str>(key)) refuse("the name of a field", key, "a text");
    const std::string name = text_of("the name of a field", key);
    const Member* member = type.find(name);
    if (member == nullptr) {
      std::vector<std::string> known;
      std::string all;
      for (const Member& each : type.members) {
        known.emplace_back(each.facts.name);
        all.append(all.empty() ? "" : ", ").append(each.facts.name);
      }
      const std::string nearest = nearest_name(name, known);
      PyErr_SetString(PyExc_TypeError,
                      str(nb::cast<std::string>(type.cls.attr("__name__")), " has no field '", name, "': ",
                          nearest.empty() ? "its fields: " : str("did you mean '", nearest, "'? Its fields: "), all)
                          .c_str());
      throw nb::python_error();
    }
    set(type, *member, self, value);
  }
}

nb::dict to_dict(const RecordType& type, nb::handle self) {
  nb::dict fields;
  for (const Member& member : type.members) fields[member.facts.name] = get(type, member, self);
  return fields;
}

nb::object copy(const RecordType& type, nb::handle self) {
  place_of(type, self);
  nb::object twin = nb::inst_alloc(type.cls);
  if (!twin.is_valid()) throw nb::python_error();
  type.copy_to(nb::inst_ptr<void>(twin), nb::inst_ptr<void>(self));
  nb::inst_mark_ready(twin);
  return twin;
}

template <class Function, class... Extra>
void method(const RecordType& type, const char* name, Function&& function, const Extra&... extra) {
  nb::cpp_function(std::forward<Function>(function), nb::scope(type.cls), nb::name(name), nb::is_method(), extra...);
}

}  // namespace

Member* RecordType::find(std::string_view name) {
  const auto found = std::ranges::find(members, name, [](const Member& m) { return std::string_view(m.facts.name); });
  return found != members.end() ? &*found : nullptr;
}

void RecordType::bind() {
  std::string keywords;
  const nb::object property = nb::module_::import_("builtins").attr("property");
  for (const Member& m : members) {
    const std::string doc = doc_of(m.facts, m.doc.c_str()), getter = str("def ", m.facts.name, "(self) -> ", m.type);
    nb::object setter = nb::none();
    if (kind == Fields::assignable) {
      setter = nb::cpp_function([this, &m](nb::handle self, nb::handle value) { set(*this, m, self, value); },
                                nb::is_method(), nb::arg("value").none());
    }
    cls.attr(m.facts.name) = property(nb::cpp_function([this, &m](nb::handle self) { return get(*this, m, self); },
                                                       nb::is_method(), nb::sig(getter.c_str()), doc.c_str()),
                                      setter, nb::none(), doc);
    keywords += str(", ", m.facts.name, ": ", m.accepted, " = ", m.default_value);
  }
  method(
      *this, "__init__", [this](nb::handle self, const nb::kwargs& fields) { construct_record(*this, self, fields); },
      nb::arg("fields"), nb::sig(str("def __init__(self, *", keywords, ") -> None").c_str()));
  method(
      *this, "to_dict", [this](nb::handle self) { return to_dict(*this, self); },
      nb::sig("def to_dict(self) -> dict[str, typing.Any]"), "All fields by name.");
  const std::string name = nb::cast<std::string>(cls.attr("__name__"));
  cls.attr("from_dict") =
      nb::module_::import_("builtins")
          .attr("staticmethod")(nb::cpp_function(
              [this](const nb::dict& fields) { return cls(**fields); }, nb::name("from_dict"), "fields"_a,
              nb::sig(str("def from_dict(fields: dict[str, typing.Any]) -> ", name).c_str())));
  method(*this, "__repr__", [this](nb::handle self) {
    nb::list parts;
    for (const Member& m : members) parts.append(nb::str("{}={!r}").format(m.facts.name, get(*this, m, self)));
    return nb::str("{}({})").format(self.type().attr("__name__"), nb::str(", ").attr("join")(parts));
  });
  method(
      *this, "__eq__",
      [this](nb::handle self, nb::handle other) {
        return nb::isinstance(other, cls) && to_dict(*this, self).equal(to_dict(*this, other));
      },
      nb::arg("other").none());
  cls.attr("__hash__") = nb::none();  // mutable, most of them
  method(*this, "__copy__", [this](nb::handle self) { return copy(*this, self); });
  method(
      *this, "__deepcopy__", [this](nb::handle self, nb::handle) { return copy(*this, self); }, nb::arg("memo"));
  method(*this, "__getstate__", [this](nb::handle self) { return to_dict(*this, self); });
  method(*this, "__setstate__",
         [this](nb::handle self, const nb::dict& fields) { construct_record(*this, self, fields); });
}

}  // namespace pagedcore::bindings
