// What a public struct holds, said once. Each parameter struct lists its fields in a static member template
//
//   template <class V> static void fields(V&& v) { v(field("n", &SamplingParams::n, "Independent samples.", in(1,
//   65536))); }
//
// and all that speaks of fields is derived from that list by a visitor: range checks and their messages, the Python
// records, text in traces and containers, options by name, command-line flags, the documentation. The list says a
// field's name, member, meaning and limits. Conditions between fields and limits that depend on a model are plain code
// in the struct's validate().
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <vector>

namespace pagedcore {

/// The type whose values a field's limits are about: of a list or of an optional value, that of what it holds.
template <class D>
struct ElementOf {
  using type = D;
};
template <class D>
struct ElementOf<std::optional<D>> {
  using type = D;
};
template <class D>
struct ElementOf<std::vector<D>> {
  using type = D;
};
template <class D>
using element_of = typename ElementOf<D>::type;

/// The values from `low` to `high`, without `low` where it is open. Infinity and NaN lie in no range.
template <class D>
struct Range {
  D low = std::numeric_limits<D>::lowest();
  D high = std::numeric_limits<D>::max();
  bool open_low = false;

  constexpr bool admits(D value) const noexcept { return (open_low ? value > low : value >= low) && value <= high; }
};

/// Limits as they are written in a list: in(1, 65536), above(0), above_up_to(0, 1). They take the type of their field;
/// one that this type cannot hold does not compile.
template <class Low, class High>
struct Limits {
  Low low;
  High high;
  bool open_low = false;
  bool no_high = false;

  template <class D>
  constexpr Range<D> of() const {
    return {static_cast<D>(low), no_high ? std::numeric_limits<D>::max() : static_cast<D>(high), open_low};
  }
};
template <class Low, class High>
constexpr Limits<Low, High> in(Low low, High high) {  // [low, high]
  return {low, high};
}
template <class Low, class High>
constexpr Limits<Low, High> above_up_to(Low low, High high) {  // (low, high]
  return {low, high, true};
}
template <class Low>
constexpr Limits<Low, Low> at_least(Low low) {
  return {low, low, false, true};
}
template <class Low>
constexpr Limits<Low, Low> above(Low low) {
  return {low, low, true, true};
}

/// The word for each value of an enum. Specialised beside the enum: `static constexpr Word<E> list[] = {...}`.
template <class E>
struct Word {
  E value;
  const char* text;
};
template <class E>
struct Words;

enum class Unit : std::uint8_t {
  none,
  bytes,  // text may say "1.5GiB" or "512MB"
  path,   // of a file: Python takes os.PathLike too
  gauge,  // a statistic that goes up and down; the others only grow
};

struct NoRange {};
template <class D>
using range_of = std::conditional_t<std::is_arithmetic_v<element_of<D>> && !std::is_same_v<element_of<D>, bool>,
                                    Range<element_of<D>>, NoRange>;

/// One field of struct T, of type D.
template <class T, class D>
struct Field {
  using Owner = T;
  using Value = D;

  const char* name;
  D T::*member;
  const char* doc;         // what it is; its limits and default follow from the list
  range_of<D> range = {};  // of each element of a list
  Unit unit = Unit::none;
  const char* zero = nullptr;  // what 0, outside the range, or an empty text stands for: "the model's". None in Python
  const char* key = nullptr;   // of a statistic: its name among those of an engine, if another; "": it is none of them
  const char* hint = nullptr;  // how to turn it off, or what an end of the range means: "0 is greedy"

  constexpr Field bytes() const {
    Field f = *this;
    f.unit = Unit::bytes;
    return f;
  }
  constexpr Field gauge(const char* name_in_engine) const {
    Field f = counter(name_in_engine);
    f.unit = Unit::gauge;
    return f;
  }
  constexpr Field counter(const char* name_in_engine) const {
    Field f = *this;
    f.key = name_in_engine;
    return f;
  }
  constexpr Field path() const {
    Field f = *this;
    f.unit = Unit::path;
    return f;
  }
  constexpr Field zero_means(const char* text) const {
    Field f = *this;
    f.zero = text;
    return f;
  }
  constexpr Field note(const char* text) const {
    Field f = *this;
    f.hint = text;
    return f;
  }
};

template <class T, class D>
constexpr Field<T, D> field(const char* name, D T::*member, const char* doc) {
  return {name, member, doc};
}
template <class T, class D, class Low, class High>
constexpr Field<T, D> field(const char* name, D T::*member, const char* doc, const Limits<Low, High>& limits) {
  return {name, member, doc, limits.template of<element_of<D>>()};
}

/// The name of a statistic among those of an engine; empty: it is none of them.
template <class T, class D>
constexpr const char* name_in_engine(const Field<T, D>& f) {
  return f.key != nullptr ? f.key : f.name;
}

/// A struct of T whose own fields are visited as T's: their names share one vocabulary, flat. A name that stands in
/// several parts means all of them.
template <class T, class S>
struct Part {
  using Owner = T;
  using Value = S;

  const char* name;
  S T::*member;
  const char* doc;
};
template <class T, class S>
constexpr Part<T, S> part(const char* name, S T::*member, const char* doc) {
  return {name, member, doc};
}

template <class F>
inline constexpr bool is_part = false;
template <class T, class S>
inline constexpr bool is_part<Part<T, S>> = true;

template <class T, class Visit>
struct EachField {
  T& t;
  Visit& visit;

  template <class F>
  void operator()(const F& f) const {
    if constexpr (is_part<F>) {
      auto& inner = t.*f.member;
      F::Value::fields(EachField<std::remove_reference_t<decltype(inner)>, Visit>{inner, visit});
    } else {
      visit(t, f);
    }
  }
};

/// visit(owner, field) for every field of `t`, those of its parts included; `owner` is the struct that holds it.
template <class T, class Visit>
void each_field(T& t, Visit&& visit) {
  std::remove_const_t<T>::fields(EachField<T, std::remove_reference_t<Visit>>{t, visit});
}

}  // namespace pagedcore
