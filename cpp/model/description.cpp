// What makes a description one that can run, and its text. The text comes from files: every character of it is checked.
#include <algorithm>

#include "base/field_lists.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore {
namespace {

constexpr const char* kWhat = "model description";

/// An enumeration that was set to no value of its own.
void check_words(const ModelDescription& d) {
  each_field(d, [](const auto& owner, const auto& f) {
    const auto& value = owner.*f.member;
    using D = std::remove_cvref_t<decltype(value)>;
    if constexpr (Named<D>) {
      for (const Word<D>& word : Words<D>::list)
        if (word.value == value) return;
      throw InvalidArgument(str(kWhat, ' ', f.name, " = ", to_text(value), " is not one of ", all_words<D>()));
    }
  });
}

void check_name(const std::string& architecture) {
  constexpr std::size_t most = 256;
  if (architecture.size() > most)
    throw InvalidArgument(
        str(kWhat, " architecture has ", architecture.size(), " characters: it is a name of at most ", most));
  for (const char c : architecture)
    if (static_cast<unsigned char>(c) < ' ') throw InvalidArgument(str(kWhat, " architecture has control codes"));
}

void check_heads(const AttentionDescription& a) {
  if (a.num_heads % a.num_kv_heads != 0)
    throw InvalidArgument(
        str(kWhat, " num_heads = ", a.num_heads, " is not a multiple of num_kv_heads = ", a.num_kv_heads));
  constexpr std::int64_t most = kMostExtent / 4;
  if (const std::int64_t columns = std::int64_t{a.num_heads} * a.head_dim; columns > most)
    throw InvalidArgument(str(kWhat, " num_heads * head_dim = ", columns, " is more than ", most));
}

void check_rope(const ModelDescription& d) {
  const std::size_t rotated = 2 * d.position.rope_inv_freq.size();
  if (rotated > static_cast<std::size_t>(d.attention.head_dim))
    throw InvalidArgument(str(kWhat, " rope_inv_freq has ", rotated / 2, " frequencies, which rotate ", rotated,
                              " dimensions of a head of ", d.attention.head_dim));
}

void check_windows(const ModelDescription& d) {
  const std::size_t count = d.attention.windows.size();
  if (count != 0 && count != static_cast<std::size_t>(d.num_layers))
    throw InvalidArgument(
        str(kWhat, " windows has ", count, " entries for ", d.num_layers, " layers; give one for each, or none"));
}

}  // namespace

void ModelDescription::validate() const {
  check_name(architecture);
  check_ranges(*this, kWhat);
  check_words(*this);
  check_heads(attention);
  check_rope(*this);
  check_windows(*this);
}

std::map<std::string, std::string> ModelDescription::to_text() const { return fields_to_text(*this); }

ModelDescription ModelDescription::from_text(const std::map<std::string, std::string>& text) {
  ModelDescription description;
  const std::vector<std::string> known = field_names<ModelDescription>();
  for (const auto& [key, value] : text) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      throw InvalidArgument(str(kWhat, ": unknown key '", key.substr(0, 64), "'; this version knows ", known.size(),
                                " keys, and a newer one may have written it"));
    set_field(description, kWhat, key, value);
  }
  description.validate();
  return description;
}

}  // namespace pagedcore
