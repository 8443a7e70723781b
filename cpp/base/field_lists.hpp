// What is derived from a struct's list of fields (pagedcore/fields.hpp): range checks, values by name, and the facts
// that documentation is made of. Instantiate each in one source file.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/field_text.hpp"

namespace pagedcore {

/// "[1, 65536]", "(0, 1]", "at least 1": what a field may hold, for people.
template <class D>
std::string range_text(const Range<D>& range) {
  const bool from = range.low > std::numeric_limits<D>::lowest(), to = range.high < std::numeric_limits<D>::max();
  if (!from && !to) return "";
  if (!to) return (range.open_low ? "above " : "at least ") + to_text(range.low);
  return str(range.open_low ? '(' : '[', to_text(range.low), ", ", to_text(range.high), ']');
}
inline std::string range_text(NoRange) { return ""; }
template <std::integral I>
std::string type_range_text() {
  return str('[', to_text(std::numeric_limits<I>::min()), ", ", to_text(std::numeric_limits<I>::max()), ']');
}

/// Whether it holds all values of its type.
template <class D>
constexpr bool has_no_limits(const Range<D>& range) {
  return std::is_integral_v<D> && range.low == std::numeric_limits<D>::lowest() &&
         range.high == std::numeric_limits<D>::max() && !range.open_low;
}

/// Whether a value lies within the field's limits; 0 does where the list says what it stands for.
template <class T, class D>
bool admits(const Field<T, D>& f, element_of<D> value) {
  return f.range.admits(value) || (f.zero != nullptr && value == element_of<D>{});
}
/// "block_size = 0 is out of range: it must lie in [1, 65536]".
struct OutOfRange {
  const char* name;
  std::string_view value;
  std::string_view range;  // empty: all finite numbers
  const char* zero;        // as in Field
  const char* hint;        // as in Field
};
PAGEDCORE_API std::string to_text(const OutOfRange& problem);
template <class T, class D>
void check_range(const Field<T, D>& f, std::string_view what, element_of<D> value) {
  if (admits(f, value)) return;
  std::string range = range_text(f.range);
  if constexpr (std::is_floating_point_v<element_of<D>>) {
    if (!std::isfinite(value)) range.clear();  // which says that it must be finite
  }
  throw InvalidArgument(str(what, ' ', to_text(OutOfRange{f.name, to_text(value), range, f.zero, f.hint})));
}

/// Throws InvalidArgument for the first value that is outside its range; `what` says what the fields are of.
template <class T>
void check_ranges(const T& t, std::string_view what) {
  each_field(t, [what](const auto& owner, const auto& f) {
    const auto& value = owner.*f.member;
    using D = std::remove_cvref_t<decltype(value)>;
    if constexpr (!std::is_same_v<range_of<D>, NoRange>) {
      if constexpr (Number<D>) {
        check_range(f, what, value);
      } else if constexpr (std::is_same_v<D, std::optional<element_of<D>>>) {
        if (value) check_range(f, what, *value);
      } else if (!has_no_limits(f.range)) {  // a prompt is long
        for (const auto element : value) check_range(f, what, element);
      }
    }
  });
}

/// The first field, of those whose names are not listed, that differs from its default; null: there is none. For
/// whoever honours some fields, and must not ignore others in silence.
template <class T>
const char* changed_beyond(const T& t, std::span<const std::string_view> honoured) {
  static const T defaults{};
  const char* changed = nullptr;
  each_field(t, [&](const auto& owner, const auto& f) {
    static_assert(std::is_same_v<std::remove_cvref_t<decltype(owner)>, T>, "a struct without parts");
    if (changed == nullptr && owner.*f.member != defaults.*f.member &&
        std::find(honoured.begin(), honoured.end(), f.name) == honoured.end())
      changed = f.name;
  });
  return changed;
}

/// Of the names that the list has, the one that differs least from `name`; empty where none has anything of it.
PAGEDCORE_API std::string nearest_name(std::string_view name, const std::vector<std::string>& names);

template <class T>
std::vector<std::string> field_names() {
  std::vector<std::string> names;
  T t{};
  each_field(t, [&](const auto&, const auto& f) {
    if (std::find(names.begin(), names.end(), f.name) == names.end()) names.emplace_back(f.name);
  });
  return names;
}

[[noreturn]] void unknown_field(std::string_view what, std::string_view name, const std::vector<std::string>& names);

/// Sets every field of this name from text; ranges are left to check_ranges(). Throws InvalidArgument, with nothing
/// changed, for an unknown name (`what` says of what; the nearest name is suggested) and a text of no such value.
template <class T>
void set_field(T& t, std::string_view what, std::string_view name, std::string_view text) {
  bool known = false;
  each_field(t, [&](auto& owner, const auto& f) {
    if (name != f.name) return;
    known = true;
    using D = std::remove_cvref_t<decltype(owner.*f.member)>;
    if (f.zero != nullptr && text == "none") return void(owner.*f.member = D{});
    if constexpr (Number<D>) {
      if (f.unit == Unit::bytes) {
        const std::uint64_t bytes = bytes_from_text(name, text);
        return void(owner.*f.member = static_cast<D>(bytes));
      }
    }
    D value{};
    from_text(name, text, value);
    owner.*f.member = std::move(value);
  });
  if (!known) unknown_field(what, name, field_names<T>());
}

/// The first field of this name, as text.
template <class T>
std::string get_field(const T& t, std::string_view what, std::string_view name) {
  std::optional<std::string> text;
  each_field(t, [&](const auto& owner, const auto& f) {
    if (!text && name == f.name) text = to_text(owner.*f.member);
  });
  if (!text) unknown_field(what, name, field_names<T>());
  return *text;
}

/// All fields as text, by name.
template <class T>
std::map<std::string, std::string> fields_to_text(const T& t) {
  std::map<std::string, std::string> text;
  each_field(t, [&](const auto& owner, const auto& f) { text.emplace(f.name, to_text(owner.*f.member)); });
  return text;
}

/// "a=1 b=fcfs ...", in the order of the list: a line of a trace, the description of an engine.
template <class T>
std::string fields_to_line(const T& t) {
  std::string line;
  each_field(t, [&](const auto& owner, const auto& f) {
    line.append(line.empty() ? "" : " ").append(f.name).append("=").append(to_text(owner.*f.member));
  });
  return line;
}

}  // namespace pagedcore
