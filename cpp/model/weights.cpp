#include "model/weights.hpp"

#include <algorithm>
#include <string>

#include "base/text.hpp"
#include "model/leaves.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

struct Part {
  std::string name;
  std::int64_t rows;  // of a vector: its length
};

/// A packed matrix of `Owner`, and the tensors [rows, cols] it is made of.
template <class Owner>
struct MatrixSpec {
  std::unique_ptr<Weight> Owner::*member;
  std::vector<Part> parts;
  std::int64_t cols;
  WeightForm form = {};

  std::int64_t n() const {
    std::int64_t rows = 0;
    for (const Part& part : parts) rows += part.rows;
    return form.kind == PackKind::gated ? rows / 2 : rows;
  }
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
  std::vector<Part> parts;
  Presence presence;

  std::int64_t n() const {
    std::int64_t length = 0;
    for (const Part& part : parts) length += part.rows;
    return length;
  }
};

template <class Owner>
struct Specs {
  using Vector = std::optional<Tensor> Owner::*;
  std::vector<MatrixSpec<Owner>> matrices;
  std::vector<VectorSpec<Owner>> vectors;

  void bias(Vector member, std::vector<Part> parts) {
    vectors.push_back({member, std::move(parts), Presence::optional});
  }
  void norm(Vector weight, Vector its_bias, const std::string& name, std::int64_t n, Presence presence) {
    vectors.push_back({weight, {{name + ".weight", n}}, presence});
    bias(its_bias, {{name + ".bias", n}});
  }
};

bool norms_before(const ModelDescription& d) {
  return d.norm.place == NormPlace::before || d.norm.place == NormPlace::both;
}
bool norms_after(const ModelDescription& d) { return d.norm.place != NormPlace::before; }
Presence norm_presence(const ModelDescription& d) { return d.norm.weights ? Presence::required : Presence::ones; }

/// An MLP by the names within it. Of those of a mixture only the matrices: see mixture_specs.
Specs<MlpWeights> mlp_specs(const ModelDescription& d, std::int64_t inter) {
  using M = MlpWeights;
  const std::int64_t hidden = d.hidden_size;
  Specs<M> s;
  if (d.mlp.gated) {
    s.matrices.push_back({&M::up, {{"gate.weight", inter}, {"up.weight", inter}}, hidden, PackKind::gated});
    s.bias(&M::up_bias, {{"gate.bias", inter}, {"up.bias", inter}});
  } else {
    s.matrices.push_back({&M::up, {{"up.weight", inter}}, hidden});
    s.bias(&M::up_bias, {{"up.bias", inter}});
  }
  s.matrices.push_back({&M::down, {{"down.weight", hidden}}, inter, WeightForm(PackKind::stacked, down_leaves(inter))});
  s.bias(&M::down_bias, {{"down.bias", hidden}});
  return s;
}

/// What a mixture has once: the router, and the biases of all experts.
Specs<MixtureWeights> mixture_specs(const ModelDescription& d) {
  using M = MixtureWeights;
  Specs<M> s;
  s.matrices.push_back({&MixtureWeights::router, {{"router.weight", d.mixture.num_experts}}, d.hidden_size});
  s.matrices.back().form.f32 = true;
  if (d.mixture.shared_gate) s.matrices.back().parts.push_back({"shared_gate.weight", 1});
  if (!d.mixture.biases) return s;
  s.vectors.push_back({&M::router_bias, {{"router.bias", d.mixture.num_experts}}, Presence::required});
  VectorSpec<M> up{&M::up_bias, {}, Presence::required}, down{&M::down_bias, {}, Presence::required};
  for (std::int32_t e = 0; e < d.mixture.num_experts; ++e) {
    const std::string of_expert = str("experts.", e, ".");
    up.parts.push_back({of_expert + "gate.bias", d.mixture.expert_size});
    up.parts.push_back({of_expert + "up.bias", d.mixture.expert_size});
    down.parts.push_back({of_expert + "down.bias", d.hidden_size});
  }
  s.vectors.push_back(std::move(up));
  s.vectors.push_back(std::move(down));
  return s;
}

/// A layer without its MLP or mixture.
Specs<LayerWeights> layer_specs(const ModelDescription& d) {
  using L = LayerWeights;
  const std::int64_t hidden = d.hidden_size, q = q_size(d), kv = kv_size(d);
  const Presence norms = norm_presence(d);
  Specs<L> s;
  if (norms_before(d)) s.norm(&L::attn_norm, &L::attn_norm_bias, "attn_norm", hidden, norms);
  if (norms_after(d)) s.norm(&L::attn_post_norm, &L::attn_post_norm_bias, "attn_post_norm", hidden, norms);
  s.matrices.push_back({&L::qkv, {{"attn.q.weight", q}, {"attn.k.weight", kv}, {"attn.v.weight", kv}}, hidden});
  s.bias(&L::qkv_bias, {{"attn.q.bias", q}, {"attn.k.bias", kv}, {"attn.v.bias", kv}});
  if (d.attention.qk_norm) {
    const bool shared = d.attention.qk_norm_span == QkNormSpan::head;
    const auto length = [&](std::int64_t all) { return shared ? d.attention.head_dim : all; };
    s.norm(&L::q_norm, &L::q_norm_bias, "attn.q_norm", length(q), norms);
    s.norm(&L::k_norm, &L::k_norm_bias, "attn.k_norm", length(kv), norms);
  }
  if (d.attention.sinks)
    s.vectors.push_back({&L::sinks, {{"attn.sinks.weight", d.attention.num_heads}}, Presence::required});
  s.matrices.push_back({&L::o,
                        {{"attn.o.weight", hidden}},
                        q,
                        WeightForm(PackKind::stacked, head_leaves(d.attention.num_heads, d.attention.head_dim))});
  s.bias(&L::o_bias, {{"attn.o.bias", hidden}});
  if (norms_before(d)) s.norm(&L::mlp_norm, &L::mlp_norm_bias, "mlp_norm", hidden, norms);
  if (norms_after(d)) s.norm(&L::mlp_post_norm, &L::mlp_post_norm_bias, "mlp_post_norm", hidden, norms);
  return s;
}

Specs<DecoderWeights> decoder_specs(const ModelDescription& d) {
  using D = DecoderWeights;
  Specs<D> s;
  const std::int64_t hidden = d.hidden_size, embedding = embedding_size(d);
  s.matrices.push_back({&D::embed, {{"embed.weight", d.vocab_size}}, embedding});
  if (d.embedding_size > 0) {
    s.matrices.push_back({&D::embed_in, {{"embed_in.weight", hidden}}, embedding});
    s.matrices.push_back({&D::embed_out, {{"embed_out.weight", embedding}}, hidden});
  }
  if (d.position.learned > 0) s.matrices.push_back({&D::positions, {{"positions.weight", d.position.learned}}, hidden});
  if (d.head && !d.tied_embeddings) s.matrices.push_back({&D::lm_head, {{"lm_head.weight", d.vocab_size}}, embedding});
  if (d.head) s.bias(&D::lm_head_bias, {{"lm_head.bias", d.vocab_size}});
  const Presence norms = norm_presence(d);
  if (d.norm.embedding) s.norm(&D::embed_norm, &D::embed_norm_bias, "embed_norm", hidden, norms);
  if (d.norm.final) s.norm(&D::final_norm, &D::final_norm_bias, "final_norm", hidden, norms);
  return s;
}

/// The product of embeddings that follows `index` others.
Specs<DenseWeights> dense_specs(const ModelDescription& d, std::size_t index) {
  const std::vector<std::int32_t>& sizes = d.embedding.dense_sizes;
  Specs<DenseWeights> s;
  s.matrices.push_back(
      {&DenseWeights::weight, {{"weight", sizes[index]}}, index == 0 ? d.hidden_size : sizes[index - 1]});
  s.bias(&DenseWeights::bias, {{"bias", sizes[index]}});
  return s;
}

/// Bytes of one vector, so that each starts at a multiple of 64.
std::size_t vector_bytes(std::int64_t n) { return (static_cast<std::size_t>(n) * sizeof(float) + 63) / 64 * 64; }

template <class Owner>
std::size_t vector_bytes(const Specs<Owner>& specs) {
  std::size_t bytes = 0;
  for (const auto& vector : specs.vectors) bytes += vector_bytes(vector.n());
  return bytes;
}

/// Adds what the matrices of one owner will take.
template <class Owner>
void add_matrices(const Specs<Owner>& specs, const std::string& prefix, const TensorSizes& sizes,
                  const WeightSource* weights, PackedSize& total) {
  for (const auto& matrix : specs.matrices) {
    std::vector<HostTensor> parts;
    for (const Part& part : matrix.parts) {
      const auto type = weights == nullptr ? std::nullopt : weights->type_of(prefix + part.name);
      parts.push_back({type.value_or(sizes.compute_dtype()), {part.rows, matrix.cols}, 2});
    }
    const PackedSize size = sizes.packed_size(parts, matrix.form);
    total.bytes += size.bytes;
    total.native += size.native;
    total.integer += size.integer;
  }
}

std::string extents(std::span<const std::int64_t> shape) {
  std::string text;
  for (const std::int64_t extent : shape) text += str(text.empty() ? "" : ", ", extent);
  return str("[", text, "]");
}

}  // namespace

std::size_t all_vector_bytes(const ModelDescription& d) {
  std::size_t layers = static_cast<std::size_t>(d.num_layers) * vector_bytes(layer_specs(d));
  const std::size_t mlp = vector_bytes(mlp_specs(d, d.mlp.intermediate_size)), mixture = vector_bytes(mixture_specs(d));
  for (std::int32_t i = 0; i < d.num_layers; ++i)
    layers += d.mixture.in_layer(static_cast<std::size_t>(i)) ? mixture : mlp;
  for (const std::int32_t size : d.embedding.dense_sizes) layers += vector_bytes(size);
  return vector_bytes(static_cast<std::int64_t>(d.position.rope_inv_freq.size())) +
         vector_bytes(static_cast<std::int64_t>(d.position.alibi_slopes.size())) + vector_bytes(decoder_specs(d)) +
         layers;
}

namespace {

/// Fills the weights from the source, vectors one after another into one buffer.
class Loader {
 public:
  Loader(const ModelDescription& d, const WeightSource& source, Backend& backend)
      : source_(source),
        backend_(backend),
        vectors_(backend.allocate(all_vector_bytes(d))),
        weight_offset_(d.norm.weight_offset) {}

  template <class Owner>
  void load(const Specs<Owner>& specs, const std::string& prefix, Owner& owner) {
    load_matrices(specs, prefix, owner);
    for (const auto& vector : specs.vectors) owner.*vector.member = load_vector(vector, prefix);
  }

  template <class Owner>
  void load_matrices(const Specs<Owner>& specs, const std::string& prefix, Owner& owner) {
    for (const auto& matrix : specs.matrices) owner.*matrix.member = load_matrix(matrix, prefix);
  }

  Tensor add_vector(std::span<const float> values) {
    const Tensor vector = next_vector(static_cast<std::int64_t>(values.size()));
    backend_.upload(vector, std::as_bytes(values));
    return vector;
  }

  std::unique_ptr<Buffer> take_vectors() { return std::move(vectors_); }

 private:
  Tensor next_vector(std::int64_t n) {
    const Tensor vector{static_cast<std::byte*>(vectors_->data()) + used_, DType::f32, 1, n, n};
    used_ += vector_bytes(n);
    return vector;
  }

  HostTensor checked(const std::string& name, std::span<const std::int64_t> expected) const {
    if (!source_.has(name))
      throw Corrupt(str("tensor ", name, " is missing; the model description asks for ", extents(expected)));
    const HostTensor tensor = source_.get(name);
    const auto rank = static_cast<std::size_t>(tensor.rank);
    const std::span<const std::int64_t> found(tensor.shape.data(), std::min(rank, tensor.shape.size()));
    if (tensor.rank != static_cast<int>(expected.size()) || !std::equal(found.begin(), found.end(), expected.begin()))
      throw Corrupt(
          str("tensor ", name, " has shape ", extents(found), "; the model description asks for ", extents(expected)));
    if (tensor.count() % info(tensor.dtype).block_elements != 0 ||
        tensor.size_bytes() != bytes_of(tensor.dtype, tensor.count()))
      throw Corrupt(str("tensor ", name, " of ", info(tensor.dtype).name, " ", extents(expected), " holds ",
                        tensor.size_bytes(), " bytes, which is not its size"));
    return tensor;
  }

  template <class Owner>
  std::unique_ptr<Weight> load_matrix(const MatrixSpec<Owner>& spec, const std::string& prefix) {
    std::vector<HostTensor> parts;
    for (const Part& part : spec.parts) {
      const std::int64_t shape[] = {part.rows, spec.cols};
      parts.push_back(checked(prefix + part.name, shape));
    }
    return backend_.pack(parts, spec.form);
  }

  template <class Owner>
  std::optional<Tensor> load_vector(const VectorSpec<Owner>& spec, const std::string& prefix) {
    std::vector<float> values(static_cast<std::size_t>(spec.n()));
    if (spec.presence == Presence::ones) {
      std::fill(values.begin(), values.end(), 1.0f - weight_offset_);
      return add_vector(values);
    }
    std::span<float> rest = values;
    const bool required = spec.presence == Presence::required;
    bool present = required;
    for (const Part& part : spec.parts) {
      const std::string name = prefix + part.name;
      const auto n = static_cast<std::size_t>(part.rows);
      if (required || source_.has(name)) {
        present = true;
        const std::int64_t shape[] = {part.rows};
        to_f32(checked(name, shape), 0, rest.first(n));
      }
      rest = rest.subspan(n);
    }
    if (present) return add_vector(values);
    next_vector(spec.n());  // its room stays empty: see planned_weight_size
    return std::nullopt;
  }

  const WeightSource& source_;
  Backend& backend_;
  std::unique_ptr<Buffer> vectors_;
  float weight_offset_;
  std::size_t used_ = 0;
};

/// Calls visit(specs, prefix) for the MLPs of a mixture: its experts, then the shared one.
template <class Visit>
void each_expert(const ModelDescription& d, const std::string& prefix, const Visit& visit) {
  const MixtureDescription& m = d.mixture;
  Specs<MlpWeights> specs = mlp_specs(d, m.expert_size);
  for (auto& matrix : specs.matrices) matrix.form.of_expert = true;
  for (std::int32_t e = 0; e < m.num_experts; ++e) visit(specs, str(prefix, "experts.", e, "."));
  if (m.shared_size > 0) visit(mlp_specs(d, m.shared_size), prefix + "shared.");
}

void load_mixture(const ModelDescription& d, Loader& loader, const std::string& prefix, MixtureWeights& weights) {
  loader.load(mixture_specs(d), prefix, weights);
  const auto experts = static_cast<std::size_t>(d.mixture.num_experts);
  for (auto* biases : {&weights.up_bias, &weights.down_bias})
    if (*biases) *biases = (*biases)->as_rows(d.mixture.num_experts);
  each_expert(d, prefix, [&](const Specs<MlpWeights>& specs, const std::string& of_expert) {
    MlpWeights expert;
    loader.load_matrices(specs, of_expert, expert);
    if (weights.up.size() == experts) {
      weights.shared = std::move(expert);
    } else {
      weights.up.push_back(std::move(expert.up));
      weights.down.push_back(std::move(expert.down));
    }
  });
}
}  // namespace

DecoderWeights load_weights(const ModelDescription& d, const WeightSource& source, Backend& backend) {
  DecoderWeights weights;
  Loader loader(d, source, backend);
  const PositionDescription& p = d.position;
  if (!p.rope_inv_freq.empty()) weights.rope_inv_freq = loader.add_vector(p.rope_inv_freq);
  if (!p.alibi_slopes.empty()) weights.alibi = loader.add_vector(p.alibi_slopes);
  loader.load(decoder_specs(d), "", weights);
  const Specs<LayerWeights> layers = layer_specs(d);
  const Specs<MlpWeights> mlp = mlp_specs(d, d.mlp.intermediate_size);
  for (std::int32_t i = 0; i < d.num_layers; ++i) {
    const std::string prefix = str("layers.", i, ".");
    LayerWeights& layer = weights.layers.emplace_back();
    loader.load(layers, prefix, layer);
    if (d.mixture.in_layer(static_cast<std::size_t>(i)))
      load_mixture(d, loader, prefix + "mlp.", layer.mixture.emplace());
    else
      loader.load(mlp, prefix + "mlp.", layer.mlp.emplace());
  }
  for (std::size_t i = 0; i < d.embedding.dense_sizes.size(); ++i)
    loader.load(dense_specs(d, i), str("dense.", i, "."), weights.dense.emplace_back());
  weights.vectors = loader.take_vectors();
  return weights;
}

PackedSize planned_weight_size(const ModelDescription& d, const TensorSizes& sizes, const WeightSource* weights) {
  PackedSize size{all_vector_bytes(d), 0};
  add_matrices(decoder_specs(d), "", sizes, weights, size);
  const Specs<LayerWeights> layers = layer_specs(d);
  const Specs<MlpWeights> mlp = mlp_specs(d, d.mlp.intermediate_size);
  for (std::int32_t i = 0; i < d.num_layers; ++i) {
    const std::string prefix = str("layers.", i, ".");
    add_matrices(layers, prefix, sizes, weights, size);
    if (!d.mixture.in_layer(static_cast<std::size_t>(i))) {
      add_matrices(mlp, prefix + "mlp.", sizes, weights, size);
      continue;
    }
    add_matrices(mixture_specs(d), prefix + "mlp.", sizes, weights, size);
    each_expert(d, prefix + "mlp.", [&](const Specs<MlpWeights>& specs, const std::string& of_expert) {
      add_matrices(specs, of_expert, sizes, weights, size);
    });
  }
  for (std::size_t i = 0; i < d.embedding.dense_sizes.size(); ++i)
    add_matrices(dense_specs(d, i), str("dense.", i, "."), sizes, weights, size);
  return size;
}

}  // namespace pagedcore
