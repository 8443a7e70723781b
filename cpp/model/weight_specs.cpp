#include "model/weight_specs.hpp"

#include "base/text.hpp"
#include "model/leaves.hpp"

namespace pagedcore {
namespace {

bool norms_before(const ModelDescription& d) {
  return d.norm.place == NormPlace::before || d.norm.place == NormPlace::both;
}
bool norms_after(const ModelDescription& d) { return d.norm.place != NormPlace::before; }
Presence norm_presence(const ModelDescription& d) { return d.norm.weights ? Presence::required : Presence::ones; }

const Cut& cut_of_rank(const Cuts& cuts, const ModelRank& rank) {
  return cuts.ranks[static_cast<std::size_t>(rank.rank)];
}

Interval scaled(const Interval& range, std::int64_t by) { return {range.first * by, range.end * by}; }

}  // namespace

Specs<MlpWeights> mlp_specs(const ModelDescription& d, std::int64_t inter, const ModelRank& rank) {
  using M = MlpWeights;
  const std::int64_t hidden = d.hidden_size;
  const Cuts cuts = inner_cuts(inter, rank.size);
  const Cut& cut = cut_of_rank(cuts, rank);
  const Interval& own = cut.columns;
  Specs<M> s;
  if (own.size() > 0) {
    const NamedPart up("up.weight", inter, own), up_bias("up.bias", inter, own);
    if (d.mlp.gated) {
      s.matrices.push_back({&M::up, {{"gate.weight", inter, own}, up}, hidden, PackKind::gated});
      s.bias(&M::up_bias, {{"gate.bias", inter, own}, up_bias});
    } else {
      s.matrices.push_back({&M::up, {up}, hidden});
      s.bias(&M::up_bias, {up_bias});
    }
  }
  for (const CutPart& part : cut.parts) s.matrices.push_back({&M::down, {{"down.weight", hidden}}, inter, part});
  s.bias(&M::down_bias, {{"down.bias", hidden}});
  return s;
}

Specs<MixtureWeights::Experts> expert_specs(const ModelDescription& d, const CutPart& part) {
  using E = MixtureWeights::Experts;
  const std::int64_t hidden = d.hidden_size, inter = d.mixture.expert_size;
  Specs<E> s;
  s.matrices.push_back(
      {&E::up, {{"gate.weight", inter, part.columns}, {"up.weight", inter, part.columns}}, hidden, PackKind::gated});
  s.matrices.push_back({&E::down, {{"down.weight", hidden}}, inter, part});
  for (auto& matrix : s.matrices) matrix.form.of_expert = true;
  return s;
}

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

Specs<LayerWeights> layer_specs(const ModelDescription& d, const Shard& shard) {
  using L = LayerWeights;
  const std::int64_t hidden = d.hidden_size, q = q_size(d), kv = kv_size(d), head = d.attention.head_dim;
  const Interval own_q = scaled(shard.heads, head), own_kv = scaled(shard.kv_heads, head);
  const Presence norms = norm_presence(d);
  const NamedPart over_hidden("", hidden);
  Specs<L> s;
  if (norms_before(d)) s.norm(&L::attn_norm, &L::attn_norm_bias, "attn_norm", over_hidden, norms);
  if (norms_after(d)) s.norm(&L::attn_post_norm, &L::attn_post_norm_bias, "attn_post_norm", over_hidden, norms);
  s.matrices.push_back(
      {&L::qkv, {{"attn.q.weight", q, own_q}, {"attn.k.weight", kv, own_kv}, {"attn.v.weight", kv, own_kv}}, hidden});
  s.bias(&L::qkv_bias, {{"attn.q.bias", q, own_q}, {"attn.k.bias", kv, own_kv}, {"attn.v.bias", kv, own_kv}});
  if (d.attention.qk_norm) {
    const auto length = [&](std::int64_t all, const Interval& own) {
      if (d.attention.qk_norm_span == QkNormSpan::head) return NamedPart("", head);
      return d.attention.qk_norm_span == QkNormSpan::row ? NamedPart("", all) : NamedPart("", all, own);
    };
    s.norm(&L::q_norm, &L::q_norm_bias, "attn.q_norm", length(q, own_q), norms);
    s.norm(&L::k_norm, &L::k_norm_bias, "attn.k_norm", length(kv, own_kv), norms);
  }
  if (d.attention.sinks)
    s.vectors.push_back({&L::sinks, {{"attn.sinks.weight", d.attention.num_heads, shard.heads}}, Presence::required});
  const Cuts cuts = attention_cuts(d, shard.rank.size);
  for (const CutPart& part : cut_of_rank(cuts, shard.rank).parts)
    s.matrices.push_back({&L::o, {{"attn.o.weight", hidden}}, q, part});
  s.bias(&L::o_bias, {{"attn.o.bias", hidden}});
  if (norms_before(d)) s.norm(&L::mlp_norm, &L::mlp_norm_bias, "mlp_norm", over_hidden, norms);
  if (norms_after(d)) s.norm(&L::mlp_post_norm, &L::mlp_post_norm_bias, "mlp_post_norm", over_hidden, norms);
  return s;
}

Specs<DecoderWeights> decoder_specs(const ModelDescription& d, const Shard& shard) {
  using D = DecoderWeights;
  Specs<D> s;
  const std::int64_t hidden = d.hidden_size, embedding = embedding_size(d);
  s.matrices.push_back({&D::embed, {{"embed.weight", d.vocab_size, shard.vocab}}, embedding});
  if (d.embedding_size > 0) {
    s.matrices.push_back({&D::embed_in, {{"embed_in.weight", hidden}}, embedding});
    s.matrices.push_back({&D::embed_out, {{"embed_out.weight", embedding}}, hidden});
  }
  if (d.position.learned > 0) s.matrices.push_back({&D::positions, {{"positions.weight", d.position.learned}}, hidden});
  if (d.head && !d.tied_embeddings)
    s.matrices.push_back({&D::lm_head, {{"lm_head.weight", d.vocab_size, shard.vocab}}, embedding});
  if (d.head) s.bias(&D::lm_head_bias, {{"lm_head.bias", d.vocab_size, shard.vocab}});
  const Presence norms = norm_presence(d);
  const NamedPart over_hidden("", hidden);
  if (d.norm.embedding) s.norm(&D::embed_norm, &D::embed_norm_bias, "embed_norm", over_hidden, norms);
  if (d.norm.final) s.norm(&D::final_norm, &D::final_norm_bias, "final_norm", over_hidden, norms);
  return s;
}

Specs<DenseWeights> dense_specs(const ModelDescription& d, std::size_t index) {
  const std::vector<std::int32_t>& sizes = d.embedding.dense_sizes;
  Specs<DenseWeights> s;
  s.matrices.push_back(
      {&DenseWeights::weight, {{"weight", sizes[index]}}, index == 0 ? d.hidden_size : sizes[index - 1]});
  s.bias(&DenseWeights::bias, {{"bias", sizes[index]}});
  return s;
}

}  // namespace pagedcore
