#include "model/weights.hpp"

#include <algorithm>
#include <deque>
#include <string>

#include "base/text.hpp"
#include "model/slices.hpp"
#include "model/weight_specs.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

/// Bytes of one vector, so that each starts at a multiple of 64.
std::size_t vector_bytes(std::int64_t n) { return (static_cast<std::size_t>(n) * sizeof(float) + 63) / 64 * 64; }

template <class Owner>
std::size_t vector_bytes(const Specs<Owner>& specs) {
  std::size_t bytes = 0;
  for (const auto& vector : specs.vectors) bytes += vector_bytes(vector.n());
  return bytes;
}

/// Throws Unsupported unless a part of columns is kept as the whole is, where that shows in bits: codes of inputs and
/// of rounded weights belong to 32 columns, those of a block format to a block.
void check_cut(const std::string& name, std::span<const HostTensor> whole, std::span<const HostTensor> taken,
               const Interval& columns, const WeightForm& form, const TensorSizes& sizes) {
  const std::int64_t k = whole[0].cols();
  WeightForm all = form;
  all.leaf_ends.clear();
  const PackedSize of_whole = sizes.packed_size(whole, all), of_part = sizes.packed_size(taken, form);
  const bool plain = info(whole[0].dtype).block_elements == 1;
  const bool converted = taken[0].dtype != whole[0].dtype;
  const bool coded = of_whole.integer > 0 || of_part.integer > 0 || (converted && of_part.native > 0) ||
                     (plain && of_whole.native + of_part.native > 0);
  if (!coded) return;
  const bool alike =
      !converted && (of_whole.integer > 0) == (of_part.integer > 0) && (of_whole.native > 0) == (of_part.native > 0);
  if (alike && columns.first % 32 == 0 && (columns.end % 32 == 0 || columns.end == k)) return;
  throw Unsupported(str("tensor ", name, " of ", info(whole[0].dtype).name, " cannot be cut at columns ", columns.first,
                        " and ", columns.end, " of ", k,
                        " without changing the codes of dtype = 'int8', or of weights = 'int8' or 'int4': use another "
                        "tensor_parallel, or dtype = 'bfloat16' and weights = 'auto'"));
}

/// The same of rows: parts of several types share a panel, which is then kept otherwise, unless they end with panels.
void check_rows(const std::string& name, std::span<const HostTensor> taken, const WeightForm& form,
                const TensorSizes& sizes) {
  if (form.kind == PackKind::gated || sizes.packed_size(taken, form).integer == 0) return;
  for (const HostTensor& part : taken)
    if (part.dtype != taken[0].dtype && (taken[0].rows() % 32 != 0 || part.rows() % 32 != 0))
      throw Unsupported(str("tensor ", name, " and what is packed with it are of several types, and a rank's ",
                            part.rows(),
                            " rows of one do not end at a multiple of 32, which dtype = 'int8' asks for: "
                            "use another tensor_parallel, or dtype = 'bfloat16'"));
}

/// Adds what the matrices of one owner will take.
template <class Owner>
void add_matrices(const Specs<Owner>& specs, const std::string& prefix, const TensorSizes& sizes,
                  const WeightSource* weights, PackedSize& total) {
  for (const auto& matrix : specs.matrices) {
    std::vector<HostTensor> whole, taken;
    for (const NamedPart& part : matrix.parts) {
      const auto known = weights == nullptr ? std::nullopt : weights->type_of(prefix + part.name);
      const DType type = known.value_or(sizes.compute_dtype());
      whole.push_back({type, {part.rows, matrix.cols}, 2});
      const bool in_blocks =
          matrix.columns.first % info(type).block_elements == 0 && matrix.columns.end % info(type).block_elements == 0;
      taken.push_back({in_blocks ? type : DType::f32, {part.taken.size(), matrix.columns.size()}, 2});
    }
    const std::string name = prefix + matrix.parts[0].name;
    if (matrix.columns.size() < matrix.cols) check_cut(name, whole, taken, matrix.columns, matrix.form, sizes);
    if (matrix.parts[0].taken.size() < matrix.parts[0].rows) check_rows(name, taken, matrix.form, sizes);
    const PackedSize size = sizes.packed_size(taken, matrix.form);
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

std::size_t all_vector_bytes(const ModelDescription& d, const Shard& shard) {
  std::size_t layers = static_cast<std::size_t>(d.num_layers) * vector_bytes(layer_specs(d, shard));
  const std::size_t mlp = vector_bytes(mlp_specs(d, d.mlp.intermediate_size, shard.rank));
  const std::size_t mixture = vector_bytes(mixture_specs(d));
  for (std::int32_t i = 0; i < d.num_layers; ++i)
    layers += d.mixture.in_layer(static_cast<std::size_t>(i)) ? mixture : mlp;
  for (const std::int32_t size : d.embedding.dense_sizes) layers += vector_bytes(size);
  return vector_bytes(static_cast<std::int64_t>(d.position.rope_inv_freq.size())) +
         vector_bytes(d.position.alibi_slopes.empty() ? 0 : shard.heads.size()) +
         vector_bytes(decoder_specs(d, shard)) + layers;
}

namespace {

/// Fills the weights from the source, vectors one after another into one buffer.
class Loader {
 public:
  Loader(const ModelDescription& d, const Shard& shard, const WeightSource& source, Backend& backend)
      : source_(source),
        backend_(backend),
        vectors_(backend.allocate(all_vector_bytes(d, shard))),
        weight_offset_(d.norm.weight_offset) {}

  template <class Owner>
  void load(const Specs<Owner>& specs, const std::string& prefix, Owner& owner) {
    load_matrices(specs, prefix, owner);
    for (const auto& vector : specs.vectors) owner.*vector.member = load_vector(vector, prefix);
  }

  template <class Owner>
  void load_matrices(const Specs<Owner>& specs, const std::string& prefix, Owner& owner) {
    for (const auto& matrix : specs.matrices) {
      std::unique_ptr<Weight> weight = load_matrix(matrix, prefix);
      if (matrix.member != nullptr)
        owner.*matrix.member = std::move(weight);
      else
        (owner.*matrix.list).push_back(std::move(weight));
    }
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
    std::deque<Columns> cut;
    for (const NamedPart& part : spec.parts) {
      const std::int64_t shape[] = {part.rows, spec.cols};
      parts.push_back(rows_of(checked(prefix + part.name, shape), part.taken));
      if (spec.columns.size() < spec.cols) parts.back() = cut.emplace_back(parts.back(), spec.columns).tensor();
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
    for (const NamedPart& part : spec.parts) {
      const std::string name = prefix + part.name;
      const auto n = static_cast<std::size_t>(part.taken.size());
      if (required || source_.has(name)) {
        present = true;
        const std::int64_t shape[] = {part.rows};
        to_f32(checked(name, shape), part.taken.first, rest.first(n));
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

/// Calls visit(part, specs, prefix) for every expert's parts.
template <class Visit>
void each_expert(const ModelDescription& d, const ModelRank& rank, const std::string& prefix, const Visit& visit) {
  const Cuts cuts = inner_cuts(d.mixture.expert_size, rank.size);
  const Cut& cut = cuts.ranks[static_cast<std::size_t>(rank.rank)];
  for (std::size_t p = 0; p < cut.parts.size(); ++p) {
    const Specs<MixtureWeights::Experts> specs = expert_specs(d, cut.parts[p]);
    for (std::int32_t e = 0; e < d.mixture.num_experts; ++e) visit(p, specs, str(prefix, "experts.", e, "."));
  }
}

void load_mixture(const ModelDescription& d, const ModelRank& rank, Loader& loader, const std::string& prefix,
                  MixtureWeights& weights) {
  loader.load(mixture_specs(d), prefix, weights);
  for (auto* biases : {&weights.up_bias, &weights.down_bias})
    if (*biases) *biases = (*biases)->as_rows(d.mixture.num_experts);
  each_expert(d, rank, prefix, [&](std::size_t part, const auto& specs, const std::string& of_expert) {
    weights.experts.resize(part + 1);
    loader.load_matrices(specs, of_expert, weights.experts[part]);
  });
  if (d.mixture.shared_size > 0)
    loader.load_matrices(mlp_specs(d, d.mixture.shared_size, rank), prefix + "shared.", weights.shared.emplace());
}
}  // namespace

DecoderWeights load_weights(const ModelDescription& d, const Shard& shard, const WeightSource& source,
                            Backend& backend) {
  DecoderWeights weights;
  Loader loader(d, shard, source, backend);
  const PositionDescription& p = d.position;
  if (!p.rope_inv_freq.empty()) weights.rope_inv_freq = loader.add_vector(p.rope_inv_freq);
  if (!p.alibi_slopes.empty()) weights.alibi = loader.add_vector(part_of(d, shard).position.alibi_slopes);
  loader.load(decoder_specs(d, shard), "", weights);
  const Specs<LayerWeights> layers = layer_specs(d, shard);
  const Specs<MlpWeights> mlp = mlp_specs(d, d.mlp.intermediate_size, shard.rank);
  for (std::int32_t i = 0; i < d.num_layers; ++i) {
    const std::string prefix = str("layers.", i, ".");
    LayerWeights& layer = weights.layers.emplace_back();
    loader.load(layers, prefix, layer);
    if (d.mixture.in_layer(static_cast<std::size_t>(i)))
      load_mixture(d, shard.rank, loader, prefix + "mlp.", layer.mixture.emplace());
    else
      loader.load(mlp, prefix + "mlp.", layer.mlp.emplace());
  }
  for (std::size_t i = 0; i < d.embedding.dense_sizes.size(); ++i)
    loader.load(dense_specs(d, i), str("dense.", i, "."), weights.dense.emplace_back());
  weights.vectors = loader.take_vectors();
  return weights;
}

PackedSize planned_weight_size(const ModelDescription& d, const Shard& shard, const TensorSizes& sizes,
                               const WeightSource* weights) {
  PackedSize size{all_vector_bytes(d, shard), 0};
  add_matrices(decoder_specs(d, shard), "", sizes, weights, size);
  const Specs<LayerWeights> layers = layer_specs(d, shard);
  const Specs<MlpWeights> mlp = mlp_specs(d, d.mlp.intermediate_size, shard.rank);
  for (std::int32_t i = 0; i < d.num_layers; ++i) {
    const std::string prefix = str("layers.", i, ".");
    add_matrices(layers, prefix, sizes, weights, size);
    if (!d.mixture.in_layer(static_cast<std::size_t>(i))) {
      add_matrices(mlp, prefix + "mlp.", sizes, weights, size);
      continue;
    }
    add_matrices(mixture_specs(d), prefix + "mlp.", sizes, weights, size);
    each_expert(d, shard.rank, prefix + "mlp.", [&](std::size_t, const auto& specs, const std::string& of_expert) {
      add_matrices(specs, of_expert, sizes, weights, size);
    });
    if (d.mixture.shared_size > 0)
      add_matrices(mlp_specs(d, d.mixture.shared_size, shard.rank), prefix + "mlp.shared.", sizes, weights, size);
  }
  for (std::size_t i = 0; i < d.embedding.dense_sizes.size(); ++i)
    add_matrices(dense_specs(d, i), str("dense.", i, "."), sizes, weights, size);
  return size;
}

}  // namespace pagedcore
