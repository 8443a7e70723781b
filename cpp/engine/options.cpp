#include "pagedcore/options.hpp"

#include <algorithm>

#include "base/field_lists.hpp"

namespace pagedcore {
namespace {

// What messages call a member of each struct.
constexpr const char* noun(const EngineConfig*) { return "engine option"; }
constexpr const char* noun(const SamplingParams*) { return "sampling parameter"; }
constexpr const char* noun(const BeamSearchParams*) { return "beam search parameter"; }
constexpr const char* noun(const RequestOptions*) { return "request option"; }
constexpr const char* noun(const SchedulerConfig*) { return "scheduler option"; }
constexpr const char* noun(const KvCacheConfig*) { return "KV cache option"; }

template <class D>
std::string type_of(Unit unit) {
  if constexpr (std::is_same_v<D, std::optional<element_of<D>>>) return type_of<element_of<D>>(unit);
  if constexpr (std::is_same_v<D, bool>) return "bool";
  if constexpr (std::is_floating_point_v<D>) return "float";
  if constexpr (Number<D>) return unit == Unit::bytes ? "size" : "int";
  if constexpr (Named<D>) return "choice";
  if constexpr (std::is_same_v<D, std::string>) return "string";
  if constexpr (std::is_same_v<D, std::vector<TokenId>>) return "tokens";
  if constexpr (std::is_same_v<D, std::vector<std::pair<TokenId, float>>>) return "biases";
  return "list";
}

template <class F>
OptionInfo info_of(const F& f, std::string default_value) {
  using D = typename F::Value;
  OptionInfo info;
  info.name = f.name;
  info.type = type_of<D>(f.unit);
  info.default_value = std::move(default_value);
  info.limits = range_text(f.range);
  if (f.zero != nullptr) info.zero = f.zero;
  if (f.hint != nullptr) info.hint = f.hint;
  info.doc = f.doc;
  if constexpr (Named<D>) {
    for (const auto& word : Words<D>::list) info.choices.emplace_back(word.text);
  }
  info.is_optional = f.zero != nullptr || std::is_same_v<D, std::optional<element_of<D>>>;
  return info;
}

}  // namespace

template <class T>
std::vector<OptionInfo> options_of() {
  std::vector<OptionInfo> list;
  const T defaults{};
  each_field(defaults, [&](const auto& owner, const auto& f) {
    const bool listed = std::any_of(list.begin(), list.end(), [&](const OptionInfo& o) { return o.name == f.name; });
    if (!listed) list.push_back(info_of(f, to_text(owner.*f.member)));
  });
  return list;
}

template <class T>
void set_option(T& options, std::string_view name, std::string_view text) {
  set_field(options, noun(&options), name, text);
}

template <class T>
std::string get_option(const T& options, std::string_view name) {
  return get_field(options, noun(&options), name);
}

#define PAGEDCORE_OPTIONS(T)                                           \
  template std::vector<OptionInfo> options_of<T>();                    \
  template void set_option<T>(T&, std::string_view, std::string_view); \
  template std::string get_option<T>(const T&, std::string_view);
PAGEDCORE_OPTIONS(EngineConfig)
PAGEDCORE_OPTIONS(SamplingParams)
PAGEDCORE_OPTIONS(BeamSearchParams)
PAGEDCORE_OPTIONS(RequestOptions)
PAGEDCORE_OPTIONS(SchedulerConfig)
PAGEDCORE_OPTIONS(KvCacheConfig)
#undef PAGEDCORE_OPTIONS

}  // namespace pagedcore
