// Options by name: every field of the public parameter structs set from text, read as text, and described. For programs
// that take options from a command line, a file or another language; C and Python are built on it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pagedcore/engine.hpp"
#include "pagedcore/export.hpp"

namespace pagedcore {

/// What a list of fields says of one of them, in words.
struct OptionInfo {
  std::string name;
  std::string type;
  std::string default_value;
  std::string limits;
  std::string zero;
  std::string hint;
  std::string doc;
  std::vector<std::string> choices;
  bool is_optional = false;

  template <class V>
  static void fields(V&& v) {
    using I = OptionInfo;
    v(field("name", &I::name, ""));
    v(field("type", &I::type, "bool, int, float, string, path, choice, size (bytes), tokens, biases or list."));
    v(field("default_value", &I::default_value, "As text. Empty: none."));
    v(field("limits", &I::limits, "\"[1, 65536]\", \"at least 0\". Empty: those of its type."));
    v(field("zero", &I::zero, "What 0, or an empty text, stands for. Empty: nothing else."));
    v(field("hint", &I::hint, "\"0 turns it off\". Empty: none."));
    v(field("doc", &I::doc, "A sentence or several."));
    v(field("choices", &I::choices, "The words of a choice."));
    v(field("is_optional", &I::is_optional, "It may be \"none\"."));
  }
};

/// All that a request of samples may say besides its prompt, as one flat vocabulary.
struct SamplingRequest {
  SamplingParams sampling;
  RequestOptions options;
  bool stream = false;

  template <class V>
  static void fields(V&& v) {
    using R = SamplingRequest;
    v(part("sampling", &R::sampling, "How tokens are chosen."));
    v(part("options", &R::options, "What every kind of request may say."));
    v(field("stream", &R::stream, "Deliver every token as it comes; otherwise each sample once, when it ends."));
  }
};

/// The same of a beam search.
struct BeamSearchRequest {
  BeamSearchParams beam;
  RequestOptions options;
  bool stream = false;

  template <class V>
  static void fields(V&& v) {
    using R = BeamSearchRequest;
    v(part("beam", &R::beam, "The search."));
    v(part("options", &R::options, "What every kind of request may say."));
    v(field("stream", &R::stream, "Deliver tokens as soon as they can no longer change."));
  }
};

/// The same of an embedding.
struct EmbeddingRequest {
  EmbeddingParams embedding;
  RequestOptions options;

  template <class V>
  static void fields(V&& v) {
    using R = EmbeddingRequest;
    v(part("embedding", &R::embedding, "What becomes of the text."));
    v(part("options", &R::options, "What every kind of request may say."));
  }
};

/// The fields of a struct, in order; parts are flat, a name that stands in several parts is listed once.
/// T: EngineConfig, SamplingParams, BeamSearchParams, EmbeddingParams, RequestOptions, SamplingRequest,
/// BeamSearchRequest, EmbeddingRequest, SnapshotLimits, SchedulerConfig, KvCacheConfig.
template <class T>
std::vector<OptionInfo> options_of();

/// The statistics that Engine::stats() gives, each of the type counter or gauge.
PAGEDCORE_API std::vector<OptionInfo> stats_of_engine();

/// Sets the field `name` from text: numbers in full, sizes as "512MB" or "1.5GiB", words as they are listed, lists as
/// "1,2,3", pairs as "7:-1.5", "none" where that has a meaning. Throws InvalidArgument, with nothing changed, for an
/// unknown name (the nearest one is suggested) and for a text that is no such value. Whether a number is within its
/// limits is checked when the struct is used.
template <class T>
void set_option(T& options, std::string_view name, std::string_view text);
/// Sets a list of token ids, or of biases. Throws InvalidArgument, with nothing changed, for the name of anything else.
template <class T>
void set_option(T& options, std::string_view name, std::span<const TokenId> tokens);
template <class T>
void set_option(T& options, std::string_view name, std::span<const std::pair<TokenId, float>> biases);
/// The value as set_option() takes it. Throws InvalidArgument for an unknown name.
template <class T>
std::string get_option(const T& options, std::string_view name);

#define PAGEDCORE_OPTIONS(T)                                                                                          \
  extern template PAGEDCORE_API std::vector<OptionInfo> options_of<T>();                                              \
  extern template PAGEDCORE_API void set_option<T>(T&, std::string_view, std::string_view);                           \
  extern template PAGEDCORE_API void set_option<T>(T&, std::string_view, std::span<const TokenId>);                   \
  extern template PAGEDCORE_API void set_option<T>(T&, std::string_view, std::span<const std::pair<TokenId, float>>); \
  extern template PAGEDCORE_API std::string get_option<T>(const T&, std::string_view);
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

/// A memory plan as text, by name: its fields, and kv_cache, total and kv_tokens, which follow from them.
PAGEDCORE_API std::vector<std::pair<std::string, std::string>> values_of(const MemoryPlan& plan);

}  // namespace pagedcore
