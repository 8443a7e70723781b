// Options by name: every field of the public parameter structs set from text, read as text, and described. For programs
// that take options from a command line, a file or another language; C and Python are built on it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pagedcore/engine.hpp"
#include "pagedcore/export.hpp"

namespace pagedcore {

/// What a list of fields says of one of them, in words.
struct OptionInfo {
  std::string name;
  std::string type;                  // bool, int, float, string, choice, size (bytes), tokens, biases or list
  std::string default_value;         // as text; empty: none
  std::string limits;                // "[1, 65536]", "at least 0"; empty: those of its type
  std::string zero;                  // what 0 ("none") stands for; empty: nothing else
  std::string hint;                  // "0 turns it off"; empty: none
  std::string doc;                   // a sentence or several
  std::vector<std::string> choices;  // of a choice
  bool is_optional = false;          // may be "none"
};

/// The fields of a struct, in order; parts are flat, a name that stands in several parts is listed once.
/// T: EngineConfig, SamplingParams, BeamSearchParams, RequestOptions, SchedulerConfig, KvCacheConfig.
template <class T>
std::vector<OptionInfo> options_of();

/// Sets the field `name` from text: numbers in full, sizes as "512MB" or "1.5GiB", words as they are listed, lists as
/// "1,2,3", pairs as "7:-1.5", "none" where that has a meaning. Throws InvalidArgument, with nothing changed, for an
/// unknown name (the nearest one is suggested) and for a text that is no such value. Whether a number is within its
/// limits is checked when the struct is used.
template <class T>
void set_option(T& options, std::string_view name, std::string_view text);
/// The value as set_option() takes it. Throws InvalidArgument for an unknown name.
template <class T>
std::string get_option(const T& options, std::string_view name);

#define PAGEDCORE_OPTIONS(T)                                                                \
  extern template PAGEDCORE_API std::vector<OptionInfo> options_of<T>();                    \
  extern template PAGEDCORE_API void set_option<T>(T&, std::string_view, std::string_view); \
  extern template PAGEDCORE_API std::string get_option<T>(const T&, std::string_view);
PAGEDCORE_OPTIONS(EngineConfig)
PAGEDCORE_OPTIONS(SamplingParams)
PAGEDCORE_OPTIONS(BeamSearchParams)
PAGEDCORE_OPTIONS(RequestOptions)
PAGEDCORE_OPTIONS(SchedulerConfig)
PAGEDCORE_OPTIONS(KvCacheConfig)
#undef PAGEDCORE_OPTIONS

}  // namespace pagedcore
