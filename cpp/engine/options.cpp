#include "pagedcore/options.hpp"

#include <algorithm>

#include "base/field_lists.hpp"
#include "engine/engine_stats.hpp"

namespace pagedcore {
namespace {

// What messages call a member of each struct.
constexpr const char* noun(const EngineConfig*) { return "engine option"; }
constexpr const char* noun(const SamplingParams*) { return "sampling parameter"; }
constexpr const char* noun(const BeamSearchParams*) { return "beam search parameter"; }
constexpr const char* noun(const RequestOptions*) { return "request option"; }
constexpr const char* noun(const SamplingRequest*) { return "sampling request"; }
constexpr const char* noun(const BeamSearchRequest*) { return "beam search request"; }
constexpr const char* noun(const EmbeddingParams*) { return "embedding parameter"; }
constexpr const char* noun(const EmbeddingRequest*) { return "embedding request"; }
constexpr const char* noun(const SnapshotLimits*) { return "snapshot limit"; }
constexpr const char* noun(const SchedulerConfig*) { return "scheduler option"; }
constexpr const char* noun(const KvCacheConfig*) { return "KV cache option"; }

template <class D>
std::string type_of(Unit unit) {
  if constexpr (std::is_same_v<D, std::optional<element_of<D>>>) return type_of<element_of<D>>(unit);
  if constexpr (std::is_same_v<D, bool>) return "bool";
  if constexpr (std::is_floating_point_v<D>) return "float";
  if constexpr (Number<D>) return unit == Unit::bytes ? "size" : "int";
  if constexpr (Named<D>) return "choice";
  if constexpr (std::is_same_v<D, std::string>) return unit == Unit::path ? "path" : "string";
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

template <class T, class List>
void set_list(T& options, std::string_view what, std::string_view name, const List& list, const char* kind) {
  bool known = false;
  each_field(options, [&](auto& owner, const auto& f) {
    if (name != f.name) return;
    known = true;
    auto& value = owner.*f.member;
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, List>) {
      value = list;
    } else {
      throw InvalidArgument(str(what, ' ', name, " is not ", kind, "; set it from text"));
    }
  });
  if (!known) unknown_field(what, name, field_names<T>());
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
void set_option(T& options, std::string_view name, std::span<const TokenId> tokens) {
  set_list(options, noun(&options), name, std::vector<TokenId>(tokens.begin(), tokens.end()), "a list of token ids");
}

template <class T>
void set_option(T& options, std::string_view name, std::span<const std::pair<TokenId, float>> biases) {
  set_list(options, noun(&options), name, std::vector<std::pair<TokenId, float>>(biases.begin(), biases.end()),
           "a list of biases");
}

template <class T>
std::string get_option(const T& options, std::string_view name) {
  return get_field(options, noun(&options), name);
}

std::vector<OptionInfo> stats_of_engine() {
  std::vector<OptionInfo> list;
  EngineStats stats;
  each_field(stats, [&](const auto&, const auto& f) {
    OptionInfo info = info_of(f, "");
    info.name = name_in_engine(f);
    info.type = f.unit == Unit::gauge ? "gauge" : "counter";
    if (!info.name.empty()) list.push_back(std::move(info));
  });
  return list;
}

std::vector<std::pair<std::string, std::string>> values_of(const MemoryPlan& plan) {
  std::vector<std::pair<std::string, std::string>> values;
  each_field(plan, [&](const auto& owner, const auto& f) { values.emplace_back(f.name, to_text(owner.*f.member)); });
  values.emplace_back("kv_cache", to_text(plan.kv_cache()));
  values.emplace_back("total", to_text(plan.total()));
  values.emplace_back("kv_tokens", to_text(plan.kv_tokens()));
  return values;
}

#define PAGEDCORE_OPTIONS(T)                                                                     \
  template std::vector<OptionInfo> options_of<T>();                                              \
  template void set_option<T>(T&, std::string_view, std::string_view);                           \
  template void set_option<T>(T&, std::string_view, std::span<const TokenId>);                   \
  template void set_option<T>(T&, std::string_view, std::span<const std::pair<TokenId, float>>); \
  template std::string get_option<T>(const T&, std::string_view);
PAGEDCORE_OPTIONS(EngineConfig)
PAGEDCORE_OPTIONS(SamplingParams)
PAGEDCORE_OPTIONS(BeamSearchParams)
PAGEDCORE_OPTIONS(RequestOptions)
PAGEDCORE_OPTIONS(SamplingRequest)
PAGEDCORE_OPTIONS(BeamSearchRequest)
PAGEDCORE_OPTIONS(EmbeddingParams)
PAGEDCORE_OPTIONS(EmbeddingRequest)
PAGEDCORE_OPTIONS(SnapshotLimits)
PAGEDCORE_OPTIONS(SchedulerConfig)
PAGEDCORE_OPTIONS(KvCacheConfig)
#undef PAGEDCORE_OPTIONS

}  // namespace pagedcore
