// An independent decoder in float64: dense, one sequence, every position's attention over the full context. It shares
// nothing with the library but the description and the names of the weights.
#pragma once

#include <algorithm>
#include <cmath>

#include "tiny_models.hpp"

namespace tiny {

using Rows = std::vector<std::vector<double>>;

class Reference {
 public:
  explicit Reference(const TinyModel& model) : m_(model), d_(model.d) {}

  /// Logits of every position.
  Rows logits(const std::vector<TokenId>& tokens) const {
    const auto hidden = static_cast<std::size_t>(d_.embedding_size > 0 ? d_.embedding_size : d_.hidden_size);
    const std::vector<float>& table = m_.values("embed.weight");
    Rows x;
    for (const TokenId token : tokens) {
      std::vector<double>& row = x.emplace_back();
      for (std::size_t i = 0; i < hidden; ++i)
        row.push_back(double(d_.embedding_scale) * table[static_cast<std::size_t>(token) * hidden + i]);
    }
    if (d_.embedding_size > 0) x = linear(x, "embed_in", d_.hidden_size);
    const std::vector<float>& learned = m_.values("positions.weight");
    for (std::size_t p = 0; p < x.size() && !learned.empty(); ++p)
      for (std::size_t i = 0; i < x[p].size(); ++i)
        x[p][i] += learned[(p + static_cast<std::size_t>(d_.position.learned_offset)) * x[p].size() + i];
    if (d_.norm.embedding) x = normed(x, "embed_norm");
    for (int layer = 0; layer < d_.num_layers; ++layer) {
      const std::string l = "layers." + std::to_string(layer) + ".";
      const Rows start = x;
      const Rows attended = attention(before(x, l + "attn_norm"), layer, l + "attn.");
      add(x, after(linear(attended, l + "attn.o", d_.hidden_size), l + "attn_post_norm"));
      if (d_.norm.place == NormPlace::outside) x = normed(x, l + "attn_post_norm");
      add(x, after(mlp(before(d_.parallel ? start : x, l + "mlp_norm"), l + "mlp."), l + "mlp_post_norm"));
      if (d_.norm.place == NormPlace::outside) x = normed(x, l + "mlp_post_norm");
    }
    if (d_.norm.final) x = normed(x, "final_norm");
    if (d_.embedding_size > 0) x = linear(x, "embed_out", d_.embedding_size);
    Rows out = linear(x, d_.tied_embeddings ? "embed" : "lm_head", d_.vocab_size);
    const std::vector<float>& bias = m_.values("lm_head.bias");
    for (auto& row : out) {
      for (std::size_t i = 0; d_.tied_embeddings && i < bias.size(); ++i) row[i] += bias[i];
      for (double& v : row) {
        v *= d_.logit_scale;
        if (d_.logit_softcap > 0) v = d_.logit_softcap * std::tanh(v / d_.logit_softcap);
      }
    }
    return out;
  }

 private:
  /// What attention or MLP reads, and what it adds.
  Rows before(const Rows& x, const std::string& name) const {
    return d_.norm.place == NormPlace::before || d_.norm.place == NormPlace::both ? normed(x, name) : x;
  }
  Rows after(Rows x, const std::string& name) const {
    if (d_.norm.place == NormPlace::after || d_.norm.place == NormPlace::both) x = normed(x, name);
    for (auto& row : x)
      for (double& v : row) v *= d_.residual_scale;
    return x;
  }

  static void add(Rows& x, const Rows& y) {
    for (std::size_t r = 0; r < x.size(); ++r)
      for (std::size_t i = 0; i < x[r].size(); ++i) x[r][i] += y[r][i];
  }

  Rows linear(const Rows& x, const std::string& name, int n) const {
    const std::vector<float>&w = m_.values(name + ".weight"), &bias = m_.values(name + ".bias");
    Rows out;
    for (const auto& row : x) {
      std::vector<double>& y = out.emplace_back();
      for (std::size_t j = 0; j < static_cast<std::size_t>(n); ++j) {
        double sum = bias.empty() ? 0.0 : bias[j];
        for (std::size_t i = 0; i < row.size(); ++i) sum += row[i] * w[j * row.size() + i];
        y.push_back(sum);
      }
    }
    return out;
  }

  /// `name` without weights: ones.
  void normalise(double* x, std::size_t n, const std::string& name, std::size_t first, NormKind kind) const {
    const std::vector<float>&weight = m_.values(name + ".weight"), &bias = m_.values(name + ".bias");
    double mean = 0, square = 0;
    if (kind == NormKind::layer) {
      for (std::size_t i = 0; i < n; ++i) mean += x[i] / double(n);
    }
    for (std::size_t i = 0; i < n; ++i) square += (x[i] - mean) * (x[i] - mean) / double(n);
    for (std::size_t i = 0; i < n; ++i) {
      const double w = weight.empty() ? 1.0 : double(weight[first + i]) + d_.norm.weight_offset;
      x[i] = (x[i] - mean) / std::sqrt(square + d_.norm.eps) * w + (bias.empty() ? 0.0 : double(bias[first + i]));
    }
  }

  Rows normed(Rows x, const std::string& name) const {
    for (auto& row : x) normalise(row.data(), row.size(), name, 0, d_.norm.kind);
    return x;
  }

  /// Normalises and rotates the heads of one row at `position`.
  void position_heads(std::vector<double>& row, std::size_t position, int layer, const std::string& norm_name) const {
    const PositionDescription& pos = d_.position;
    const AttentionDescription& a = d_.attention;
    const auto dim = static_cast<std::size_t>(a.head_dim);
    const int table = pos.rope_layers.empty() ? 0 : pos.rope_layers[static_cast<std::size_t>(layer)];
    const auto half = table < 0 ? 0 : pos.rope_inv_freq.size() / static_cast<std::size_t>(pos.rope_tables);
    const double magnitude = table == 0 ? pos.rope_magnitude : 1.0f;
    if (a.qk_norm && a.qk_norm_span == QkNormSpan::row) normalise(row.data(), row.size(), norm_name, 0, a.qk_norm_kind);
    for (std::size_t h = 0; h < row.size(); h += dim) {
      if (a.qk_norm && a.qk_norm_span != QkNormSpan::row)
        normalise(&row[h], dim, norm_name, a.qk_norm_span == QkNormSpan::head ? 0 : h, a.qk_norm_kind);
      for (std::size_t i = 0; i < half; ++i) {
        const double angle = double(position) * pos.rope_inv_freq[static_cast<std::size_t>(table) * half + i];
        const double c = std::cos(angle) * magnitude, s = std::sin(angle) * magnitude;
        const double x = row[h + i], y = row[h + i + half];
        row[h + i] = x * c - y * s;
        row[h + i + half] = y * c + x * s;
      }
    }
  }

  Rows attention(const Rows& x, int layer, const std::string& l) const {
    const int heads = d_.attention.num_heads, kv_heads = d_.attention.num_kv_heads, dim = d_.attention.head_dim;
    Rows q = linear(x, l + "q", heads * dim), k = linear(x, l + "k", kv_heads * dim);
    const Rows v = linear(x, l + "v", kv_heads * dim);
    for (std::size_t p = 0; p < x.size(); ++p) {
      position_heads(q[p], p, layer, l + "q_norm");
      position_heads(k[p], p, layer, l + "k_norm");
    }
    const double scale = d_.attention.scale > 0 ? double(d_.attention.scale) : 1.0 / std::sqrt(double(dim));
    const auto window = static_cast<std::size_t>(
        d_.attention.windows.empty() ? 0 : d_.attention.windows[static_cast<std::size_t>(layer)]);
    Rows out(x.size(), std::vector<double>(static_cast<std::size_t>(heads * dim)));
    for (std::size_t p = 0; p < x.size(); ++p) {
      const std::size_t first = window > 0 && p + 1 > window ? p + 1 - window : 0;
      for (int h = 0; h < heads; ++h) {
        const auto qo = static_cast<std::size_t>(h * dim), ko = static_cast<std::size_t>(h / (heads / kv_heads) * dim);
        std::vector<double> weight;
        double sum = 0;
        for (std::size_t t = first; t <= p; ++t) {
          double score = 0;
          for (std::size_t i = 0; i < static_cast<std::size_t>(dim); ++i) score += q[p][qo + i] * k[t][ko + i];
          score *= scale;
          if (d_.attention.softcap > 0) score = d_.attention.softcap * std::tanh(score / d_.attention.softcap);
          if (!d_.position.alibi_slopes.empty())
            score -= double(d_.position.alibi_slopes[static_cast<std::size_t>(h)]) * double(p - t);
          sum += weight.emplace_back(std::exp(score));
        }
        if (d_.attention.sinks) sum += std::exp(double(m_.values(l + "sinks.weight")[static_cast<std::size_t>(h)]));
        for (std::size_t t = first; t <= p; ++t)
          for (std::size_t i = 0; i < static_cast<std::size_t>(dim); ++i)
            out[p][qo + i] += weight[t - first] / sum * v[t][ko + i];
      }
    }
    return out;
  }

  double activate(double x) const {
    switch (d_.mlp.activation) {
      case Activation::silu:
        return x / (1.0 + std::exp(-x));
      case Activation::gelu:
        return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
      case Activation::gelu_tanh:
        return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
      case Activation::relu:
        return std::max(x, 0.0);
      case Activation::clamped_swiglu: {
        const double g = std::min(x, double(d_.mlp.swiglu_limit));
        return g / (1.0 + std::exp(-double(d_.mlp.swiglu_alpha) * g));
      }
    }
    return 0;
  }

  Rows mlp(const Rows& x, const std::string& l) const {
    Rows inner = linear(x, l + (d_.mlp.gated ? "gate" : "up"), d_.mlp.intermediate_size);
    for (auto& row : inner)
      for (double& v : row) v = activate(v);
    if (d_.mlp.gated) {
      const Rows up = linear(x, l + "up", d_.mlp.intermediate_size);
      for (std::size_t r = 0; r < up.size(); ++r)
        for (std::size_t i = 0; i < up[r].size(); ++i) {
          const double limit = d_.mlp.swiglu_limit;
          const bool clamped = d_.mlp.activation == Activation::clamped_swiglu;
          inner[r][i] *= clamped ? std::clamp(up[r][i], -limit, limit) + 1.0 : up[r][i];
        }
    }
    return linear(inner, l + "down", d_.hidden_size);
  }

  const TinyModel& m_;
  const ModelDescription& d_;
};

}  // namespace tiny
