// What there is of a model's weights, under which name and of which shape, as tables; of a rank, which part of it.
// Planning, checking and loading all read them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/shard.hpp"
#include "model/weights.hpp"

namespace pagedcore {

struct NamedPart {
  std::string name;
  std::int64_t rows;  // of a vector: its length
  Interval taken;     // of them: the rank's

  NamedPart(std::string its_name, std::int64_t all) : name(std::move(its_name)), rows(all), taken{0, all} {}
  NamedPart(std::string its_name, std::int64_t all, const Interval& own)
      : name(std::move(its_name)), rows(all), taken(own) {}
};

/// A packed matrix of `Owner`, one of its own or one of a list, and the tensors [rows, cols] it is made of.
template <class Owner>
struct MatrixSpec {
  std::unique_ptr<Weight> Owner::*member;
  std::vector<std::unique_ptr<Weight>> Owner::*list;  // where there is no `member`
  std::vector<NamedPart> parts;
  std::int64_t cols;
  WeightForm form = {};
  Interval columns;  // of cols: the rank's

  MatrixSpec(std::unique_ptr<Weight> Owner::*to, std::vector<NamedPart> tensors, std::int64_t k,
             WeightForm its_form = {})
      : member(to), list(nullptr), parts(std::move(tensors)), cols(k), form(std::move(its_form)), columns{0, k} {}
  MatrixSpec(std::vector<std::unique_ptr<Weight>> Owner::*to, std::vector<NamedPart> tensors, std::int64_t k,
             const CutPart& part)
      : member(nullptr),
        list(to),
        parts(std::move(tensors)),
        cols(k),
        form(PackKind::stacked, part.leaf_ends),
        columns(part.columns) {}
  MatrixSpec(std::vector<std::unique_ptr<Weight>> Owner::*to, std::vector<NamedPart> tensors, std::int64_t k,
             PackKind kind)
      : member(nullptr), list(to), parts(std::move(tensors)), cols(k), form(kind), columns{0, k} {}
};

enum class Presence : std::uint8_t {
  required,
  optional,  // exists when any part does; the parts that do not are zero
  ones,      // is in no file: of a norm that only normalises
};

/// An f32 vector of `Owner`: its parts one after another.
template <class Owner>
struct VectorSpec {
  std::optional<Tensor> Owner::*member;
  std::vector<NamedPart> parts;
  Presence presence;

  std::int64_t n() const {
    std::int64_t length = 0;
    for (const NamedPart& part : parts) length += part.taken.size();
    return length;
  }
};

template <class Owner>
struct Specs {
  using Vector = std::optional<Tensor> Owner::*;
  std::vector<MatrixSpec<Owner>> matrices;
  std::vector<VectorSpec<Owner>> vectors;

  void bias(Vector member, std::vector<NamedPart> parts) {
    vectors.push_back({member, std::move(parts), Presence::optional});
  }
  void norm(Vector weight, Vector its_bias, const std::string& name, const NamedPart& length, Presence presence) {
    vectors.push_back({weight, {{name + ".weight", length.rows, length.taken}}, presence});
    bias(its_bias, {{name + ".bias", length.rows, length.taken}});
  }
};

/// An MLP with `inter` columns between its products, by the names within it.
Specs<MlpWeights> mlp_specs(const ModelDescription& d, std::int64_t inter, const ModelRank& rank);
/// Of one expert, the leaves of one subtree. It has no biases.
Specs<MixtureWeights::Experts> expert_specs(const ModelDescription& d, const CutPart& part);
/// What a mixture has once: the router, and the biases of all experts.
Specs<MixtureWeights> mixture_specs(const ModelDescription& d);
/// A layer without its MLP or mixture.
Specs<LayerWeights> layer_specs(const ModelDescription& d, const Shard& shard);
Specs<DecoderWeights> decoder_specs(const ModelDescription& d, const Shard& shard);
/// The product of embeddings that follows `index` others.
Specs<DenseWeights> dense_specs(const ModelDescription& d, std::size_t index);

}  // namespace pagedcore
