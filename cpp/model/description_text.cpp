// A description as text and back. The text comes from files, so every character of it is checked.
#include <array>
#include <charconv>
#include <set>
#include <system_error>
#include <type_traits>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore {
namespace {

/// visit(name, field) for every field: the one list of them.
template <class Description, class Visit>
void for_each_field(Description& d, const Visit& visit) {
  visit("architecture", d.architecture);
  visit("vocab_size", d.vocab_size);
  visit("hidden_size", d.hidden_size);
  visit("intermediate_size", d.intermediate_size);
  visit("num_layers", d.num_layers);
  visit("num_heads", d.num_heads);
  visit("num_kv_heads", d.num_kv_heads);
  visit("head_dim", d.head_dim);
  visit("max_context", d.max_context);
  visit("norm", d.norm);
  visit("norm_eps", d.norm_eps);
  visit("norm_weight_offset", d.norm_weight_offset);
  visit("activation", d.activation);
  visit("gated_mlp", d.gated_mlp);
  visit("tied_embeddings", d.tied_embeddings);
  visit("qk_norm", d.qk_norm);
  visit("embedding_scale", d.embedding_scale);
  visit("attention_scale", d.attention_scale);
  visit("attention_softcap", d.attention_softcap);
  visit("logit_scale", d.logit_scale);
  visit("logit_softcap", d.logit_softcap);
  visit("rope_inv_freq", d.rope_inv_freq);
  visit("rope_magnitude", d.rope_magnitude);
  visit("windows", d.windows);
}

// The words for values that have names, in the order of their enumerations.
constexpr std::array<std::string_view, 2> words_of(bool) { return {"false", "true"}; }
constexpr std::array<std::string_view, 2> words_of(NormKind) { return {"rms", "layer"}; }
constexpr std::array<std::string_view, 4> words_of(Activation) { return {"silu", "gelu", "gelu_tanh", "relu"}; }

template <class T>
inline constexpr bool is_number = std::is_same_v<T, std::int32_t> || std::is_same_v<T, float>;

std::string write(const std::string& value) { return value; }

template <class T>
std::string write(const T& value) {
  if constexpr (is_number<T>) {
    std::array<char, 32> text;  // the shortest digits that read back as the same number
    return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
  } else {
    return std::string(words_of(value)[static_cast<std::size_t>(value)]);
  }
}

template <class T>
std::string write(const std::vector<T>& values) {
  std::string text;
  for (const T& value : values) {
    if (!text.empty()) text += ',';
    text += write(value);
  }
  return text;
}

[[noreturn]] void malformed(std::string_view key, std::string_view text, std::string_view expected) {
  constexpr std::size_t shown = 64;
  throw InvalidArgument(str("model description: ", key, " = '", text.substr(0, shown),
                            text.size() > shown ? "...'" : "'", " is not ", expected));
}

void read(std::string_view, std::string_view text, std::string& out) { out = text; }

template <class T>
void read(std::string_view key, std::string_view text, T& out) {
  if constexpr (is_number<T>) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (error != std::errc{} || end != text.data() + text.size())
      malformed(key, text, std::is_same_v<T, float> ? "a number in the range of f32" : "a 32-bit integer");
  } else {
    std::string known;
    const auto words = words_of(out);
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (text == words[i]) {
        out = static_cast<T>(i);
        return;
      }
      known += str(i == 0 ? "one of " : ", ", words[i]);
    }
    malformed(key, text, known);
  }
}

template <class T>
void read(std::string_view key, std::string_view text, std::vector<T>& out) {
  out.clear();
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    read(key, text.substr(0, comma), out.emplace_back());
    if (comma == std::string_view::npos) return;
    text.remove_prefix(comma + 1);
    if (text.empty()) malformed(key, ",", "a list of numbers: it ends with a comma");
  }
}

}  // namespace

std::map<std::string, std::string> ModelDescription::to_text() const {
  std::map<std::string, std::string> text;
  for_each_field(*this, [&](const char* key, const auto& field) { text.emplace(key, write(field)); });
  return text;
}

ModelDescription ModelDescription::from_text(const std::map<std::string, std::string>& text) {
  ModelDescription description;
  std::set<std::string_view> known;
  for_each_field(description, [&](const char* key, auto& field) {
    known.insert(key);
    if (const auto found = text.find(key); found != text.end()) read(key, found->second, field);
  });
  for (const auto& entry : text)
    if (!known.contains(entry.first))
      throw InvalidArgument(str("model description: unknown key '", entry.first.substr(0, 64), "'; this version knows ",
                                known.size(), " keys, and a newer one may have written it"));
  description.validate();
  return description;
}

}  // namespace pagedcore
