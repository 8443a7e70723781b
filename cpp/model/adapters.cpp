#include "model/adapters.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "base/text.hpp"
#include "model/weights.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

struct Place {
  const char* module;
  std::int64_t first_column, columns;
};

/// The matrices of a product, in the order of its columns.
struct ProductPlaces {
  LowRankForm form;
  std::vector<Place> places;
};

ProductPlaces places_of(const ModelDescription& d, AdaptedProduct product) {
  const std::int64_t q = q_size(d), kv = kv_size(d), hidden = d.hidden_size, inner = d.mlp.intermediate_size;
  switch (product) {
    case AdaptedProduct::qkv:
      return {{PackKind::stacked, q + 2 * kv, hidden, {}},
              {{"attn.q", 0, q}, {"attn.k", q, kv}, {"attn.v", q + kv, kv}}};
    case AdaptedProduct::o:
      return {{PackKind::stacked, hidden, q, {}}, {{"attn.o", 0, hidden}}};
    case AdaptedProduct::up:
      if (d.mlp.gated)
        return {{PackKind::gated, inner, hidden, {}}, {{"mlp.gate", 0, inner}, {"mlp.up", inner, inner}}};
      return {{PackKind::stacked, inner, hidden, {}}, {{"mlp.up", 0, inner}}};
    case AdaptedProduct::down:
      return {{PackKind::stacked, hidden, inner, {}}, {{"mlp.down", 0, hidden}}};
  }
  return {};
}

AdaptedProduct product_at(std::size_t index) { return static_cast<AdaptedProduct>(index); }

/// layers.N.MODULE
struct MatrixName {
  std::int32_t layer = 0;
  std::string_view module;
};

std::optional<MatrixName> parse(std::string_view name) {
  constexpr std::string_view kLayers = "layers.";
  if (!name.starts_with(kLayers)) return std::nullopt;
  name.remove_prefix(kLayers.size());
  MatrixName parsed;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), parsed.layer);
  if (error != std::errc{} || parsed.layer < 0 || end == name.data() + name.size() || *end != '.') return std::nullopt;
  parsed.module = name.substr(static_cast<std::size_t>(end - name.data()) + 1);
  return parsed;
}

std::string shape_of(const HostTensor& t) { return str("[", t.rows(), ", ", t.cols(), "]"); }

void check_matrix(const AdapterMatrix& matrix, const ModelDescription& d, std::uint32_t most) {
  const std::optional<MatrixName> name = parse(matrix.name);
  if (name && name->layer >= d.num_layers)
    throw InvalidArgument(str("the adapter changes '", matrix.name, "', but the model has ", d.num_layers,
                              " layers: it was made for another model"));
  for (std::size_t p = 0; name && p < kAdaptedProducts; ++p) {
    const ProductPlaces product = places_of(d, product_at(p));
    for (const Place& place : product.places) {
      if (name->module != place.module) continue;
      const std::int64_t rank = matrix.down.rank == 2 ? matrix.down.rows() : 0;
      if (rank < 1) throw InvalidArgument(str("the adapter's '", matrix.name, "' has rank 0; a rank is at least 1"));
      if (matrix.up.rank != 2 || matrix.down.cols() != product.form.k || matrix.up.rows() != place.columns ||
          matrix.up.cols() != rank)
        throw InvalidArgument(str("the adapter's '", matrix.name, "' is ", shape_of(matrix.up), " times ",
                                  shape_of(matrix.down), ", but the model's is [", place.columns, ", ", product.form.k,
                                  "]: it was made for another model"));
      if (rank > most)
        throw InvalidArgument(str("the adapter's '", matrix.name, "' has rank ", rank,
                                  ", above max_adapter_rank = ", most, "; raise that"));
      return;
    }
  }
  throw InvalidArgument(str("the adapter changes '", matrix.name,
                            "', which is none of layers.N.attn.q, k, v, o and layers.N.mlp.",
                            d.mlp.gated ? "gate, " : "", "up, down of this model"));
}

}  // namespace

void check_adapter(const AdapterWeights& weights, const ModelDescription& d, const AdapterOptions& options) {
  if (weights.matrices.empty()) throw InvalidArgument("the adapter has no matrices");
  std::set<std::string_view> names;
  for (const AdapterMatrix& matrix : weights.matrices) {
    check_matrix(matrix, d, options.max_adapter_rank);
    if (!names.insert(matrix.name).second) throw InvalidArgument(str("the adapter changes '", matrix.name, "' twice"));
  }
}

std::size_t plan_adapter_memory(const ModelDescription& d, const TensorSizes& sizes, const AdapterOptions& options,
                                std::uint32_t max_batched_tokens) {
  if (options.max_adapters == 0) return 0;
  if (!sizes.serves_adapters())
    throw Unsupported(
        str("max_adapters = ", options.max_adapters, ": adapters are not served on this device yet; use device cpu"));
  if (d.mixture.num_experts > 0)
    throw Unsupported(str("max_adapters = ", options.max_adapters, " for a mixture of ", d.mixture.num_experts,
                          " experts: adapters are served for models without; merge them into the weights"));
  std::size_t layer = 0;
  for (std::size_t p = 0; p < kAdaptedProducts; ++p) {
    ProductPlaces product = places_of(d, product_at(p));
    for (const Place& place : product.places)
      product.form.parts.push_back({.first_column = place.first_column,
                                    .columns = place.columns,
                                    .rank = std::int64_t{options.max_adapter_rank}});
    layer += sizes.low_rank_bytes(product.form);
  }
  const std::int64_t sums = std::int64_t{max_batched_tokens} * 3 * options.max_adapter_rank;
  return static_cast<std::size_t>(options.max_adapters) * static_cast<std::size_t>(d.num_layers) * layer +
         bytes_of(DType::f32, sums);
}

Adapters::Adapters(const ModelDescription& description, Backend& backend, const AdapterOptions& options,
                   std::uint32_t max_rows)
    : d_(description),
      backend_(backend),
      most_ranks_(3 * std::int64_t{options.max_adapter_rank}),
      buffer_(backend.allocate(bytes_of(DType::f32, std::int64_t{max_rows} * most_ranks_))),
      slots_(options.max_adapters) {}

void Adapters::load(std::int32_t slot, const AdapterWeights& weights) {
  std::map<std::string_view, const AdapterMatrix*> by_name;
  for (const AdapterMatrix& matrix : weights.matrices) by_name[matrix.name] = &matrix;
  drop(slot);
  std::vector<Layer> layers(static_cast<std::size_t>(d_.num_layers));
  for (std::size_t i = 0; i < layers.size(); ++i)
    for (std::size_t p = 0; p < kAdaptedProducts; ++p) {
      ProductPlaces product = places_of(d_, product_at(p));
      for (const Place& place : product.places) {
        const auto found = by_name.find(str("layers.", i, ".", place.module));
        if (found == by_name.end()) continue;
        const AdapterMatrix& m = *found->second;
        product.form.parts.push_back({place.first_column, place.columns, m.down.rows(), m.down, m.up, m.scale});
      }
      if (!product.form.parts.empty()) layers[i][p] = backend_.pack_low_rank(product.form);
    }
  slots_[static_cast<std::size_t>(slot)] = std::move(layers);
}

void Adapters::drop(std::int32_t slot) noexcept { slots_[static_cast<std::size_t>(slot)].clear(); }

std::size_t Adapters::bytes() const noexcept {
  std::size_t total = buffer_->bytes();
  for (const std::vector<Layer>& layers : slots_)
    for (const Layer& layer : layers)
      for (const auto& weight : layer) total += weight ? weight->bytes() : 0;
  return total;
}

void Adapters::check(std::span<const std::int32_t> slots, std::int64_t rows) const {
  if (slots.empty()) return;
  if (slots.size() != static_cast<std::size_t>(rows))
    throw InvalidArgument(str("forward: adapters of ", slots.size(), " rows in a batch of ", rows));
  for (const std::int32_t slot : slots)
    if (slot < -1 || slot >= std::ssize(slots_) || (slot >= 0 && slots_[static_cast<std::size_t>(slot)].empty()))
      throw InvalidArgument(str("forward: no adapter is in slot ", slot, " of ", slots_.size()));
}

void Adapters::begin(std::span<const std::int32_t> slots) {
  of_rows_.assign(slots.begin(), slots.end());
  sort(of_rows_);
}

void Adapters::choose(std::span<const std::int32_t> rows) {
  std::vector<std::int32_t> slots;
  if (!of_rows_.empty())
    for (const std::int32_t row : rows) slots.push_back(of_rows_[static_cast<std::size_t>(row)]);
  sort(slots);
}

void Adapters::choose_all() { sort(of_rows_); }

void Adapters::sort(std::span<const std::int32_t> slots) {
  rows_.clear();
  ends_.clear();
  used_.clear();
  for (std::size_t row = 0; row < slots.size(); ++row)
    if (slots[row] >= 0) rows_.push_back(static_cast<std::int32_t>(row));
  const auto slot_of = [&](std::int32_t row) { return slots[static_cast<std::size_t>(row)]; };
  std::ranges::stable_sort(rows_, {}, slot_of);
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    if (used_.empty() || used_.back() != slot_of(rows_[i])) {
      used_.push_back(slot_of(rows_[i]));
      ends_.push_back(0);
    }
    ends_.back() = static_cast<std::int32_t>(i) + 1;
  }
}

const LowRankSums* Adapters::sums(std::int32_t layer, AdaptedProduct product, const Tensor& in) {
  if (rows_.empty()) return nullptr;
  weights_.clear();
  for (const std::int32_t slot : used_)
    weights_.push_back(
        slots_[static_cast<std::size_t>(slot)][static_cast<std::size_t>(layer)][static_cast<std::size_t>(product)]
            .get());
  if (std::ranges::all_of(weights_, [](const LowRankWeight* weight) { return weight == nullptr; })) return nullptr;
  const auto count = static_cast<std::int64_t>(rows_.size());
  sums_ = {{rows_, ends_, weights_}, {buffer_->data(), DType::f32, count, most_ranks_, most_ranks_}};
  backend_.low_rank(sums_.down, in, sums_.of);
  return &sums_;
}

}  // namespace pagedcore
