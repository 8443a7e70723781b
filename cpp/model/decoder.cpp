// The forward pass of a transformer, a decoder or an encoder (Touvron et al., "LLaMA", 2023, and its relatives):
//
//   x = embedding of the tokens
//   for each layer:  x = x + W_o attention(rope(W_qkv norm(x)))
//                    x = x + W_down (act(W_gate norm(x)) * W_up norm(x)), or a mixture of such experts
//   logits = W_head norm(x)
//
// What the relatives do otherwise is data: norms lie before attention and MLP, after them, or around the sum; both may
// read the same x; positions are rotated into q and k, added to x, or taken from the scores. x, the residual stream,
// stays in f32; what goes into a matmul is in the backend's compute type. Keys and values of all rows are needed by
// later steps, but what follows the last layer's attention only by the rows whose logits are asked for: the rest of
// them stops there. Rows do not influence each other, so this changes no bit. What an embedding is made of are such
// rows too, before the head.
#include <algorithm>
#include <cmath>

#include "base/text.hpp"
#include "model/activations.hpp"
#include "model/weights.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

const Tensor* optional(const std::optional<Tensor>& tensor) noexcept { return tensor ? &*tensor : nullptr; }

Epilogue epilogue(Epilogue::Kind kind, const std::optional<Tensor>& bias) {
  return {kind, Activation::silu, optional(bias), nullptr};
}

}  // namespace

struct Model::Impl {
  Impl(const ModelDescription& description, const WeightSource& source, Backend& device, std::uint32_t max_rows,
       std::uint32_t max_logit_rows)
      : d(description),
        backend(device),
        weights(load_weights(d, source, device)),
        activations(d, device, max_rows, max_logit_rows),
        groups(layer_groups(d)) {}

  void check(const ForwardRequest& request, const KvStorage& kv) const;
  void norm(const Tensor& out, const Tensor& in, const std::optional<Tensor>& weight,
            const std::optional<Tensor>& bias);
  void qk_norm(const Tensor& heads, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias);
  template <class Branch>
  void add_branch(const LayerScratch& s, const Branch& branch, const std::optional<Tensor>& norm_weight,
                  const std::optional<Tensor>& norm_bias);
  void normalize(const LayerWeights& layer, const LayerScratch& s);
  void mlp(const MlpWeights& layer, const LayerScratch& s, const Tensor& out, Epilogue::Kind kind);
  void mix(const MixtureWeights& layer, const LayerScratch& s, const Tensor& out, Epilogue::Kind kind);
  RopeParams rope_of(std::int32_t index) const;
  void embed(const Batch& batch, const LayerScratch& s);
  SwigluParams swiglu() const { return {d.mlp.swiglu_alpha, d.mlp.swiglu_limit}; }
  void attend(std::int32_t index, const Batch& batch, KvStorage& kv);
  void finish_layer(const LayerWeights& layer, const LayerScratch& s);
  LayerScratch finish(std::span<const std::int32_t> rows, const LayerScratch& all);
  Tensor logits_of(std::span<const std::int32_t> rows, const LayerScratch& all);
  Tensor hidden_of(const LayerScratch& s);

  const ModelDescription d;
  Backend& backend;
  DecoderWeights weights;
  Activations activations;
  const LayerGroups groups;
  const std::vector<Tensor> rope_tables = weights.rope_tables(d.position.rope_tables);
};

/// Where there is no such norm, out = in.
void Model::Impl::norm(const Tensor& out, const Tensor& in, const std::optional<Tensor>& weight,
                       const std::optional<Tensor>& bias) {
  if (!weight) return backend.convert(out, in);
  backend.norm(out, in, *weight, optional(bias), {d.norm.kind, d.norm.eps, d.norm.weight_offset});
}

void Model::Impl::qk_norm(const Tensor& heads, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias) {
  const AttentionDescription& a = d.attention;
  const NormParams params{a.qk_norm_kind, d.norm.eps, d.norm.weight_offset};
  if (a.qk_norm_span == QkNormSpan::row) return backend.norm(heads, heads, *weight, optional(bias), params);
  backend.head_norm(heads, a.head_dim, *weight, optional(bias), params);
}

/// residual += what `branch` computes, with the norms and the scale that lie between
template <class Branch>
void Model::Impl::add_branch(const LayerScratch& s, const Branch& branch, const std::optional<Tensor>& norm_weight,
                             const std::optional<Tensor>& norm_bias) {
  const bool outside = d.norm.place == NormPlace::outside;
  if (adds_at_once(d)) {
    branch(s.residual, Epilogue::Kind::accumulate);
  } else {
    branch(s.branch, Epilogue::Kind::store);
    if (norm_weight && !outside) norm(s.branch, s.branch, norm_weight, norm_bias);
    backend.add(s.residual, s.branch, d.residual_scale);
  }
  if (outside) norm(s.residual, s.residual, norm_weight, norm_bias);
}

RopeParams Model::Impl::rope_of(std::int32_t index) const {
  const PositionDescription& p = d.position;
  const std::int32_t table = p.rope_layers.empty() ? 0 : p.rope_layers[static_cast<std::size_t>(index)];
  if (table < 0 || rope_tables.empty()) return {};
  return {&rope_tables[static_cast<std::size_t>(table)], table == 0 ? p.rope_magnitude : 1.0f};
}

/// residual = embedding of the tokens and, where they are learned, of the positions
void Model::Impl::embed(const Batch& batch, const LayerScratch& s) {
  if (weights.embed_in) {
    const Tensor narrow = activations.embedded(batch.rows());
    backend.embed(narrow, *weights.embed, batch, d.embedding_scale);
    backend.convert(s.embedding, narrow);
    backend.matmul(s.residual, s.embedding, *weights.embed_in, {});
  } else {
    backend.embed(s.residual, *weights.embed, batch, d.embedding_scale);
  }
  if (weights.positions) {
    backend.embed_positions(s.branch, *weights.positions, batch, d.position.learned_offset);
    backend.add(s.residual, s.branch, 1.0f);
  }
  if (weights.embed_norm) norm(s.residual, s.residual, weights.embed_norm, weights.embed_norm_bias);
}

/// attended = attention over the context of each row, whose keys and values this step's rows join first.
void Model::Impl::attend(std::int32_t index, const Batch& batch, KvStorage& kv) {
  const LayerWeights& layer = weights.layers[static_cast<std::size_t>(index)];
  const LayerScratch s = activations.layer(batch.rows());
  const Tensor qkv = activations.qkv(batch.rows()), q = activations.q(batch.rows());

  norm(s.normed, s.residual, layer.attn_norm, layer.attn_norm_bias);
  backend.matmul(qkv, s.normed, *layer.qkv, epilogue(Epilogue::Kind::store, layer.qkv_bias));
  const AttentionDescription& a = d.attention;
  if (a.qk_norm) {
    qk_norm(qkv.slice_cols(0, q_size(d)), layer.q_norm, layer.q_norm_bias);
    qk_norm(qkv.slice_cols(q_size(d), kv_size(d)), layer.k_norm, layer.k_norm_bias);
  }

  AttentionShape shape{a.num_heads, a.num_kv_heads, a.head_dim};
  const LayerGroups::Place place = groups.layers[static_cast<std::size_t>(index)];
  shape.layer_group = place.layer_group;
  backend.rope_and_cache(q, qkv, kv, place.index, batch, shape, rope_of(index));

  AttentionParams params{shape};
  params.scale = a.scale > 0.0f ? a.scale : 1.0f / std::sqrt(static_cast<float>(a.head_dim));
  params.softcap = a.softcap;
  params.window = a.windows.empty() ? 0 : a.windows[static_cast<std::size_t>(index)];
  params.bidirectional = a.bidirectional;
  params.alibi = optional(weights.alibi);
  params.sinks = optional(layer.sinks);
  backend.attention(s.attended, q, kv, place.index, batch, params);
}

/// W_down (act(W_gate normed) * W_up normed)
void Model::Impl::mlp(const MlpWeights& layer, const LayerScratch& s, const Tensor& out, Epilogue::Kind kind) {
  const auto up = d.mlp.gated ? Epilogue::Kind::gated : Epilogue::Kind::activated;
  backend.matmul(s.inner, s.normed, *layer.up, {up, d.mlp.activation, optional(layer.up_bias), nullptr, swiglu()});
  backend.matmul(out, s.inner, *layer.down, epilogue(kind, layer.down_bias));
}

/// normed = norm(residual), of which, in f32, a router makes the shares of experts.
void Model::Impl::normalize(const LayerWeights& layer, const LayerScratch& s) {
  if (!layer.mixture) return norm(s.normed, s.residual, layer.mlp_norm, layer.mlp_norm_bias);
  const MixtureDescription& m = d.mixture;
  const MixtureScratch x = activations.mixture(s.normed.rows);
  norm(x.normed, s.residual, layer.mlp_norm, layer.mlp_norm_bias);
  backend.matmul(x.logits, x.normed, *layer.mixture->router,
                 epilogue(Epilogue::Kind::store, layer.mixture->router_bias));
  backend.route(x.routing, x.logits, {m.router, m.renormalize, m.router_scale, m.shared_gate});
  backend.convert(s.normed, x.normed);
}

/// The sum of some experts' MLPs, each by its share of the row, and of the shared expert's.
void Model::Impl::mix(const MixtureWeights& layer, const LayerScratch& s, const Tensor& out, Epilogue::Kind kind) {
  const MixtureDescription& m = d.mixture;
  const MixtureScratch x = activations.mixture(s.normed.rows);
  const bool accumulate = kind == Epilogue::Kind::accumulate;
  backend.mixture(out, s.normed, x.routing,
                  {layer.up, layer.down, d.mlp.activation, accumulate, x.gathered, x.inner, swiglu(),
                   optional(layer.up_bias), optional(layer.down_bias)});
  if (!layer.shared) return;
  const Tensor share = x.routing.shares.slice_cols(m.experts_per_token, m.shared_gate ? 1 : 0);
  backend.matmul(x.shared, s.normed, *layer.shared->up,
                 {Epilogue::Kind::gated, d.mlp.activation, nullptr, m.shared_gate ? &share : nullptr, swiglu()});
  backend.matmul(out, x.shared, *layer.shared->down, {Epilogue::Kind::accumulate});
}

/// residual += W_o attended;  residual += MLP(norm(residual)), or a mixture of them, in a parallel block of the
/// residual before both
void Model::Impl::finish_layer(const LayerWeights& layer, const LayerScratch& s) {
  if (d.parallel) normalize(layer, s);
  const auto attention = [&](const Tensor& out, Epilogue::Kind kind) {
    backend.matmul(out, s.attended, *layer.o, epilogue(kind, layer.o_bias));
  };
  add_branch(s, attention, layer.attn_post_norm, layer.attn_post_norm_bias);

  if (!d.parallel) normalize(layer, s);
  const auto feed_forward = [&](const Tensor& out, Epilogue::Kind kind) {
    if (layer.mixture) return mix(*layer.mixture, s, out, kind);
    mlp(*layer.mlp, s, out, kind);
  };
  add_branch(s, feed_forward, layer.mlp_post_norm, layer.mlp_post_norm_bias);
}

/// The last layer after its attention, for some rows of the step.
LayerScratch Model::Impl::finish(std::span<const std::int32_t> rows, const LayerScratch& all) {
  const LayerScratch s = activations.tail(static_cast<std::int64_t>(rows.size()));
  backend.gather_rows(s.residual, all.residual, rows);
  backend.gather_rows(s.attended, all.attended, rows);
  finish_layer(weights.layers.back(), s);
  return s;
}

/// What embeddings are made of: rows after all layers, in place.
Tensor Model::Impl::hidden_of(const LayerScratch& s) {
  if (weights.final_norm) norm(s.residual, s.residual, weights.final_norm, weights.final_norm_bias);
  return s.residual;
}

/// The head, for some rows of the step.
Tensor Model::Impl::logits_of(std::span<const std::int32_t> rows, const LayerScratch& all) {
  const auto count = static_cast<std::int64_t>(rows.size());
  const LayerScratch s = finish(rows, all);
  norm(s.normed, s.residual, weights.final_norm, weights.final_norm_bias);
  if (weights.embed_out) backend.matmul(s.embedding, s.normed, *weights.embed_out, {});
  const Tensor logits = activations.logits(count);
  const Tensor& last = weights.embed_out ? s.embedding : s.normed;
  backend.matmul(logits, last, weights.head(), epilogue(Epilogue::Kind::store, weights.lm_head_bias));
  if (d.logit_scale != 1.0f || d.logit_softcap > 0.0f) backend.scale_softcap(logits, d.logit_scale, d.logit_softcap);
  return logits;
}

void Model::Impl::check(const ForwardRequest& request, const KvStorage& kv) const {
  if (request.batch == nullptr) throw InvalidArgument("forward: no batch given");
  const std::int64_t rows = request.batch->rows();
  if (rows > activations.max_rows())
    throw InvalidArgument(str("forward: a batch of ", rows, " rows; the model was made for at most ",
                              activations.max_rows(), " (max_batched_tokens)"));
  if (!d.head && !request.logit_rows.empty()) throw InvalidArgument("forward: logits of a model that has no head");
  for (const auto& asked : {request.logit_rows, request.hidden_rows})
    for (const std::int32_t row : asked)
      if (row < 0 || row >= rows)
        throw InvalidArgument(str("forward: logits of row ", row, " of a batch of ", rows, " rows"));
  const KvShape& shape = kv.shape();
  if (shape.num_layers != groups.layers_per_group || shape.num_kv_heads != d.attention.num_kv_heads ||
      shape.head_dim != d.attention.head_dim)
    throw InvalidArgument(str("forward: the KV storage holds ", shape.num_layers, " layers of ", shape.num_kv_heads,
                              " heads of size ", shape.head_dim, "; a layer group of the model has ",
                              groups.layers_per_group, " of ", d.attention.num_kv_heads, " of size ",
                              d.attention.head_dim));
}

void Model::forward(const ForwardRequest& request, KvStorage& kv,
                    const std::function<void(std::int64_t first, const Tensor& logits)>& consume) {
  Impl& m = *impl_;
  m.check(request, kv);
  const Batch& batch = *request.batch;
  if (batch.rows() == 0) return;

  const LayerScratch s = m.activations.layer(batch.rows());
  const std::span<const std::int32_t> rows = request.logit_rows;
  const auto piece = static_cast<std::size_t>(m.activations.max_logit_rows());
  const auto logits_from = [&](std::size_t first) {
    return m.logits_of(rows.subspan(first, std::min(piece, rows.size() - first)), s);
  };
  Tensor logits;
  m.backend.run_step(batch, [&] {
    m.embed(batch, s);
    for (std::int32_t layer = 0; layer < m.d.num_layers; ++layer) {
      m.attend(layer, batch, kv);
      if (layer + 1 < m.d.num_layers) m.finish_layer(m.weights.layers[static_cast<std::size_t>(layer)], s);
    }
    if (!rows.empty()) logits = logits_from(0);
  });
  for (std::size_t first = 0; first < rows.size(); first += piece) {
    if (first > 0) logits = logits_from(first);
    consume(static_cast<std::int64_t>(first), logits);
  }
  const std::span<const std::int32_t> hidden = request.hidden_rows;
  if (hidden.size() == static_cast<std::size_t>(batch.rows())) {  // where they lie
    m.finish_layer(m.weights.layers.back(), s);
    return request.take_hidden(0, m.hidden_of(s));
  }
  for (std::size_t first = 0; first < hidden.size(); first += piece)
    request.take_hidden(static_cast<std::int64_t>(first),
                        m.hidden_of(m.finish(hidden.subspan(first, std::min(piece, hidden.size() - first)), s)));
}

std::vector<float> Model::dense(std::vector<float> pooled) {
  Impl& m = *impl_;
  const EmbeddingDescription& e = m.d.embedding;
  std::int64_t cols = m.d.hidden_size;
  for (std::size_t i = 0; i < e.dense_sizes.size(); ++i) {
    const std::int64_t rows = static_cast<std::int64_t>(pooled.size()) / cols, out = e.dense_sizes[i];
    const std::int64_t most = m.activations.max_logit_rows();
    std::vector<float> next(static_cast<std::size_t>(rows * out));
    for (std::int64_t first = 0; first < rows; first += most) {
      const std::int64_t n = std::min(most, rows - first);
      const Tensor in = m.activations.dense(n, cols), result = m.activations.dense(n, out);
      const Tensor narrow = m.activations.dense_input(n, cols);
      const auto part = [&](std::vector<float>& list, std::int64_t width) {
        return std::span(list).subspan(static_cast<std::size_t>(first * width), static_cast<std::size_t>(n * width));
      };
      m.backend.upload(in, std::as_bytes(part(pooled, cols)));
      m.backend.convert(narrow, in);
      m.backend.matmul(result, narrow, *m.weights.dense[i].weight,
                       epilogue(Epilogue::Kind::store, m.weights.dense[i].bias));
      m.backend.download(std::as_writable_bytes(part(next, out)), result);
    }
    if (!e.dense_tanh.empty() && e.dense_tanh[i] != 0)
      for (float& x : next) x = std::tanh(x);
    pooled = std::move(next);
    cols = out;
  }
  return pooled;
}

namespace {
const ModelDescription& validated(const ModelDescription& description) {
  description.validate();
  return description;
}
}  // namespace

Model::Model(const ModelDescription& description, const WeightSource& weights, Backend& backend,
             std::uint32_t max_batched_tokens, std::uint32_t max_logit_rows)
    : impl_(std::make_unique<Impl>(validated(description), weights, backend, max_batched_tokens, max_logit_rows)) {}

Model::~Model() = default;

const ModelDescription& Model::description() const noexcept { return impl_->d; }

KvShape Model::kv_shape(std::int32_t block_size) const { return kv_shape_of(impl_->d, impl_->backend, block_size); }

std::size_t Model::weight_bytes() const noexcept { return impl_->weights.bytes(); }
std::size_t Model::activation_bytes() const noexcept { return impl_->activations.bytes(); }

}  // namespace pagedcore
