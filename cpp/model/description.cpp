// What makes a description one that can run, and its text. The text comes from files: every character of it is checked.
#include <algorithm>

#include "base/field_lists.hpp"
#include "base/text.hpp"
#include "model/leaves.hpp"
#include "pagedcore/backend.hpp"
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
  if (const std::int64_t leaves = num_head_leaves(a.num_heads, a.head_dim); leaves > std::int64_t{kMostLeaves})
    throw InvalidArgument(str(kWhat, " num_heads = ", a.num_heads, " with head_dim = ", a.head_dim, " makes sums of ",
                              leaves, " leaves, one for each 128 dimensions of a head; at most ", kMostLeaves));
}

/// Of a list with an entry for each layer, or with none.
void check_entries(const ModelDescription& d, const char* name, std::size_t count) {
  if (count != 0 && count != static_cast<std::size_t>(d.num_layers))
    throw InvalidArgument(
        str(kWhat, ' ', name, " has ", count, " entries for ", d.num_layers, " layers; give one for each, or none"));
}

void check_rope(const ModelDescription& d) {
  const PositionDescription& p = d.position;
  const auto tables = static_cast<std::size_t>(p.rope_tables);
  if (p.rope_inv_freq.size() % tables != 0)
    throw InvalidArgument(str(kWhat, " rope_inv_freq has ", p.rope_inv_freq.size(), " frequencies, which are not ",
                              tables, " tables (rope_tables) of equal length"));
  check_entries(d, "rope_layers", p.rope_layers.size());
  for (const std::int32_t table : p.rope_layers)
    if (table >= p.rope_tables)
      throw InvalidArgument(str(kWhat, " rope_layers names table ", table, " of ", tables, " (rope_tables)"));
  const std::size_t rotated = 2 * p.rope_inv_freq.size() / tables;
  if (rotated > static_cast<std::size_t>(d.attention.head_dim))
    throw InvalidArgument(str(kWhat, " rope_inv_freq has ", rotated / 2, " frequencies, which rotate ", rotated,
                              " dimensions of a head of ", d.attention.head_dim));
}

void check_positions(const ModelDescription& d) {
  const PositionDescription& p = d.position;
  const std::int64_t needed = std::int64_t{d.max_context} + p.learned_offset;
  if (p.learned > 0 && p.learned < needed)
    throw InvalidArgument(str(kWhat, " learned_positions = ", p.learned, " is below the ", needed,
                              " that max_context = ", d.max_context, " and learned_offset = ", p.learned_offset,
                              " need"));
  const std::size_t slopes = p.alibi_slopes.size();
  if (slopes != 0 && slopes != static_cast<std::size_t>(d.attention.num_heads))
    throw InvalidArgument(str(kWhat, " alibi_slopes has ", slopes, " entries for ", d.attention.num_heads,
                              " heads; give one for each, or none"));
}

void check_mixture(const ModelDescription& d) {
  const MixtureDescription& m = d.mixture;
  check_entries(d, "mixture_layers", m.layers.size());
  if (m.num_experts == 0) return;
  if (m.experts_per_token < 1 || m.experts_per_token > m.num_experts)
    throw InvalidArgument(str(kWhat, " experts_per_token = ", m.experts_per_token, " is outside [1, ", m.num_experts,
                              "], the number of experts (num_experts)"));
  if (m.expert_size < 1) throw InvalidArgument(str(kWhat, " expert_size = 0: experts have at least 1 column"));
  if (!d.mlp.gated) throw InvalidArgument(str(kWhat, " gated_mlp = false: experts have a gate"));
  if (m.shared_gate && m.shared_size == 0)
    throw InvalidArgument(
        str(kWhat, " shared_expert_gate = true, but shared_expert_size = 0: there is no such expert"));
  if (m.biases && m.shared_size > 0)
    throw InvalidArgument(str(kWhat, " mixture_biases = true goes with shared_expert_size = 0, not ", m.shared_size));
}

void check_activation(const ModelDescription& d) {
  if (d.mlp.activation == Activation::clamped_swiglu && !d.mlp.gated)
    throw InvalidArgument(str(kWhat, " activation = clamped_swiglu goes with gated_mlp = true"));
}

void check_embedding(const ModelDescription& d) {
  const EmbeddingDescription& e = d.embedding;
  if (e.pooling == Pooling::automatic)
    throw InvalidArgument(str(kWhat, " pooling = auto is for requests; a model has last, mean or cls"));
  if (!e.dense_tanh.empty() && e.dense_tanh.size() != e.dense_sizes.size())
    throw InvalidArgument(str(kWhat, " dense_tanh has ", e.dense_tanh.size(), " entries for ", e.dense_sizes.size(),
                              " dense_sizes; give one for each, or none"));
  if (d.attention.bidirectional && d.head)
    throw InvalidArgument(str(kWhat, " bidirectional = true goes with head = false: it cannot generate"));
  if (d.attention.bidirectional && !d.position.alibi_slopes.empty())
    throw InvalidArgument(str(kWhat, " bidirectional = true has no alibi_slopes: they count tokens before a row only"));
  if (e.pooling == Pooling::cls && !d.attention.bidirectional)
    throw InvalidArgument(str(kWhat,
                              " pooling = cls goes with bidirectional = true: a first token that sees nothing "
                              "behind it says nothing of a text"));
}

void check_block(const ModelDescription& d) {
  if (d.parallel && d.norm.place != NormPlace::before)
    throw InvalidArgument(
        str(kWhat, " parallel_block = true goes with norm_place = before, not ", to_text(d.norm.place)));
}

}  // namespace

void ModelDescription::validate() const {
  check_name(architecture);
  check_ranges(*this, kWhat);
  check_words(*this);
  check_heads(attention);
  check_rope(*this);
  check_positions(*this);
  check_entries(*this, "windows", attention.windows.size());
  check_activation(*this);
  check_mixture(*this);
  check_block(*this);
  check_embedding(*this);
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
