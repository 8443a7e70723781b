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
//
// Ranks that share a model run the same steps, each over its heads, its columns inside the MLPs and its part of the
// vocabulary. All have x: the two products that add to it end in an exchange (exchange.hpp).
#include "model/decoder.hpp"

#include <algorithm>
#include <cmath>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

/// Where there is no such norm, out = in.
void Model::Impl::norm(const Tensor& out, const Tensor& in, const std::optional<Tensor>& weight,
                       const std::optional<Tensor>& bias) {
  if (!weight) return backend.convert(out, in);
  backend.norm(out, in, *weight, optional(bias), {d.norm.kind, d.norm.eps, d.norm.weight_offset});
}

void Model::Impl::qk_norm(const Tensor& qkv, const LayerWeights& layer) {
  const AttentionDescription& a = d.attention;
  const Tensor q = qkv.slice_cols(0, q_size(own)), k = qkv.slice_cols(q_size(own), kv_size(own));
  if (a.qk_norm_span == QkNormSpan::row) {
    row_norm(q, q, exchange.query_columns(), {layer.q_norm, layer.q_norm_bias});
    const std::int64_t seen = (shard.owned_kv_heads.first - shard.kv_heads.first) * a.head_dim;
    return row_norm(k, k.slice_cols(seen, kv_size(own) - seen), exchange.key_columns(),
                    {layer.k_norm, layer.k_norm_bias});
  }
  const NormParams params{a.qk_norm_kind, d.norm.eps, d.norm.weight_offset};
  backend.head_norm(q, a.head_dim, *layer.q_norm, optional(layer.q_norm_bias), params);
  backend.head_norm(k, a.head_dim, *layer.k_norm, optional(layer.k_norm_bias), params);
}

/// Over the heads of all ranks together. `shown`: the last of `heads`, which are this rank's part of `ranges`.
void Model::Impl::row_norm(const Tensor& heads, const Tensor& shown, const std::vector<Interval>& ranges,
                           const QkNorm& of) {
  const NormParams params{d.attention.qk_norm_kind, d.norm.eps, d.norm.weight_offset};
  if (shard.whole()) return backend.norm(heads, heads, *of.weight, optional(of.bias), params);
  const Tensor all = exchange.gather(shown, ranges, of.weight->cols);
  backend.norm(all, all, *of.weight, optional(of.bias), params);
  const std::int64_t end = ranges[static_cast<std::size_t>(shard.rank.rank)].end;
  backend.convert(heads, all.slice_cols(end - heads.cols, heads.cols));
}

/// out = or += in W^T + bias, where each rank has some of the columns of W and of `in`.
void Model::Impl::project(const Tensor& out, const Tensor& in, const std::vector<std::unique_ptr<Weight>>& weight,
                          const Cuts& cuts, const Epilogue& to) {
  if (shard.whole()) return backend.matmul(out, in, *weight[0], to);
  const Cut& cut = cuts.ranks[static_cast<std::size_t>(shard.rank.rank)];
  for (std::size_t i = 0; i < cut.parts.size(); ++i) {
    const Interval& columns = cut.parts[i].columns;
    backend.matmul(exchange.partial(in.rows, i, cut.parts.size()),
                   in.slice_cols(columns.first - cut.columns.first, columns.size()), *weight[i], {});
  }
  exchange.reduce(out, cuts, to);
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
void Model::Impl::embed(const Batch& batch, std::span<const TokenId> tokens, const LayerScratch& s) {
  const auto look_up = [&](const Tensor& out) {
    if (shard.whole()) return backend.embed(out, *weights.embed, batch, d.embedding_scale);
    backend.embed_some(out, *weights.embed, batch, d.embedding_scale, static_cast<TokenId>(shard.vocab.first));
    exchange.share_embedding(out, tokens);
  };
  if (weights.embed_in) {
    const Tensor narrow = activations.embedded(batch.rows());
    look_up(narrow);
    backend.convert(s.embedding, narrow);
    backend.matmul(s.residual, s.embedding, *weights.embed_in, {});
  } else {
    look_up(s.residual);
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
  if (a.qk_norm) qk_norm(qkv, layer);

  const LayerGroups::Place place = groups.layers[static_cast<std::size_t>(index)];
  const AttentionShape shape{.num_heads = own.attention.num_heads,
                             .num_kv_heads = own.attention.num_kv_heads,
                             .head_dim = a.head_dim,
                             .layer_group = place.layer_group,
                             .heads_per_kv_head = shard.whole() ? 0 : a.num_heads / a.num_kv_heads,
                             .first_in_group = shard.first_in_group};
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
  if (layer.up)
    backend.matmul(s.inner, s.normed, *layer.up, {up, d.mlp.activation, optional(layer.up_bias), nullptr, swiglu()});
  project(out, s.inner, layer.down, mlp_parts, epilogue(kind, layer.down_bias));
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

void Model::Impl::mix_part(const MixtureWeights& layer, std::size_t index, const Tensor& out, const LayerScratch& s,
                           bool accumulate) {
  const MixtureScratch x = activations.mixture(s.normed.rows);
  const MixtureWeights::Experts& part = layer.experts[index];
  const Tensor inner = x.inner.slice_cols(0, part.down[0]->k());
  backend.mixture(out, s.normed, x.routing,
                  {part.up, part.down, d.mlp.activation, accumulate, x.gathered, inner, swiglu(),
                   optional(layer.up_bias), optional(layer.down_bias)});
}

/// The sum of some experts' MLPs, each by its share of the row, and of the shared expert's.
void Model::Impl::mix(const MixtureWeights& layer, const LayerScratch& s, const Tensor& out, Epilogue::Kind kind) {
  const MixtureDescription& m = d.mixture;
  const MixtureScratch x = activations.mixture(s.normed.rows);
  if (shard.whole()) {
    mix_part(layer, 0, out, s, kind == Epilogue::Kind::accumulate);
  } else {
    const std::size_t parts = layer.experts.size();
    for (std::size_t i = 0; i < parts; ++i) mix_part(layer, i, exchange.partial(out.rows, i, parts), s, false);
    exchange.reduce(out, expert_parts, {kind});
  }
  if (!layer.shared) return;
  const Tensor share = x.routing.shares.slice_cols(m.experts_per_token, m.shared_gate ? 1 : 0);
  if (layer.shared->up)
    backend.matmul(x.shared, s.normed, *layer.shared->up,
                   {Epilogue::Kind::gated, d.mlp.activation, nullptr, m.shared_gate ? &share : nullptr, swiglu()});
  project(out, x.shared, layer.shared->down, shared_parts, {Epilogue::Kind::accumulate});
}

/// residual += W_o attended;  residual += MLP(norm(residual)), or a mixture of them, in a parallel block of the
/// residual before both
void Model::Impl::finish_layer(const LayerWeights& layer, const LayerScratch& s) {
  if (d.parallel) normalize(layer, s);
  const auto attention = [&](const Tensor& out, Epilogue::Kind kind) {
    project(out, s.attended, layer.o, attention_parts, epilogue(kind, layer.o_bias));
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
  const Tensor whole = activations.logits(count), logits = whole.slice_cols(0, shard.vocab.size());
  const Tensor& last = weights.embed_out ? s.embedding : s.normed;
  backend.matmul(logits, last, weights.head(), epilogue(Epilogue::Kind::store, weights.lm_head_bias));
  if (d.logit_scale != 1.0f || d.logit_softcap > 0.0f) backend.scale_softcap(logits, d.logit_scale, d.logit_softcap);
  if (!shard.whole()) exchange.gather_logits(whole, logits);
  return whole;
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
  if (!shard.whole() && request.tokens.size() != static_cast<std::size_t>(rows))
    throw InvalidArgument(str("forward: ", request.tokens.size(), " tokens of a batch of ", rows, " rows"));
  for (const TokenId token : request.tokens)
    if (token < 0 || token >= d.vocab_size)
      throw InvalidArgument(str("forward: token ", token, " is outside the vocabulary [0, ", d.vocab_size, ")"));
  const KvShape& shape = kv.shape();
  if (shape.num_layers != groups.layers_per_group || shape.num_kv_heads != own.attention.num_kv_heads ||
      shape.head_dim != d.attention.head_dim)
    throw InvalidArgument(str("forward: the KV storage holds ", shape.num_layers, " layers of ", shape.num_kv_heads,
                              " heads of size ", shape.head_dim, "; a layer group of the model has ",
                              groups.layers_per_group, " of ", own.attention.num_kv_heads, " of size ",
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
    m.embed(batch, request.tokens, s);
    for (std::int32_t layer = 0; layer < m.d.num_layers; ++layer) {
      m.attend(layer, batch, kv);
      if (layer + 1 < m.d.num_layers) m.finish_layer(m.weights.layers[static_cast<std::size_t>(layer)], s);
    }
    if (!rows.empty()) logits = logits_from(0);
  });
  for (std::size_t first = 0; first < rows.size(); first += piece) {
    if (first > 0) logits = logits_from(first);
    if (m.shard.rank.rank == 0) consume(static_cast<std::int64_t>(first), logits);
  }
  const auto take_hidden = [&](std::int64_t first, const Tensor& hidden) {
    if (m.shard.rank.rank == 0) request.take_hidden(first, hidden);
  };
  const std::span<const std::int32_t> hidden = request.hidden_rows;
  if (hidden.size() == static_cast<std::size_t>(batch.rows())) {  // where they lie
    m.finish_layer(m.weights.layers.back(), s);
    return take_hidden(0, m.hidden_of(s));
  }
  for (std::size_t first = 0; first < hidden.size(); first += piece)
    take_hidden(static_cast<std::int64_t>(first),
                m.hidden_of(m.finish(hidden.subspan(first, std::min(piece, hidden.size() - first)), s)));
}

}  // namespace pagedcore
