// Plain structs as Python classes: every field is an attribute and a keyword of the constructor.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/values.hpp"
#include "pagedcore/fields.hpp"

namespace pagedcore::bindings {

/// A field, without the struct's type: where it lies, and how its value goes to Python and back.
struct Member {
  Facts facts;
  std::string doc, type, accepted, default_value;
  std::vector<std::ptrdiff_t> places;  // in bytes; several where several parts have a field of this name
  nb::object (*get)(const void* place, nb::handle owner);
  void (*set)(const Facts& facts, nb::handle value, void* place);
};

enum class Fields { assignable, fixed };  // once it has been constructed

/// A class as Python has it, and its fields. Lives as long as the process.
struct RecordType {
  nb::handle cls;
  Fields kind;
  std::vector<Member> members;
  void (*construct)(void* place);
  void (*copy_to)(void* place, const void* from);

  Member* find(std::string_view name);
  /// Defines the attributes, the constructor and what else a record can do.
  void bind();
};

template <class D>
nb::object get_member(const void* place, nb::handle owner) {
  return to_python(*static_cast<const D*>(place), owner);
}
template <class D>
void set_member(const Facts& facts, nb::handle value, void* place) {
  from_python(facts, value, *static_cast<D*>(place));
}

/// Binds struct T by its list of fields (pagedcore/fields.hpp); those of its parts lie flat among them. A list read
/// from a field is a copy: assign to change it. Where Python is given views of a struct's memory, its fields, and those
/// of what contains it, are fixed.
template <class T>
class Record {
 public:
  Record(nb::module_& m, const char* name, const char* doc, Fields kind = Fields::assignable) : cls_(m, name, doc) {
    static RecordType& type =
        *new RecordType{cls_,
                        kind,
                        {},
                        [](void* place) { new (place) T{}; },
                        [](void* place, const void* from) { new (place) T(*static_cast<const T*>(from)); }};
    const T defaults{};
    each_field(defaults, [&](const auto& owner, const auto& f) {
      using D = typename std::remove_cvref_t<decltype(f)>::Value;
      const D& value = owner.*f.member;
      const std::ptrdiff_t place =
          reinterpret_cast<const std::byte*>(&value) - reinterpret_cast<const std::byte*>(&defaults);
      if (Member* known = type.find(f.name)) return known->places.push_back(place);
      Facts facts = facts_of(f);
      std::string read = PythonType<D>::name(), accepted = read;
      if constexpr (Named<D>) {
        accepted = PythonType<D>::name(true);
      } else {
        accepted = accepted_type(facts, read);
      }
      const nb::object shown = f.zero != nullptr || Structure<D> ? nb::none() : to_python(value);
      type.members.push_back({std::move(facts),
                              f.doc,
                              std::move(read),
                              std::move(accepted),
                              Structure<D> ? "..." : nb::repr(shown).c_str(),
                              {place},
                              &get_member<D>,
                              &set_member<D>});
    });
    type.bind();
  }

  nb::class_<T>& python() { return cls_; }

 private:
  nb::class_<T> cls_;
};

}  // namespace pagedcore::bindings
