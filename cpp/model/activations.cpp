#include "model/activations.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/text.hpp"
#include "model/exchange.hpp"
#include "model/weights.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

void check_rows(const char* name, std::uint32_t rows) {
  constexpr std::uint32_t most = std::numeric_limits<std::int32_t>::max();
  if (rows < 1 || rows > most) throw InvalidArgument(str(name, " = ", rows, " is outside [1, ", most, "]"));
}

}  // namespace

ActivationLayout::ActivationLayout(const ModelDescription& whole, const Shard& shard, DType compute,
                                   const MostRows& most)
    : rows(most.step), logit_rows(std::min(most.step, most.logits)) {
  check_rows("max_batched_tokens", most.step);
  check_rows("max_logit_rows", most.logits);
  const ModelDescription d = part_of(whole, shard);
  const auto size = [](DType dtype, std::int64_t r, std::int64_t c) { return (bytes_of(dtype, r * c) + 63) / 64 * 64; };
  const std::int64_t hidden = d.hidden_size, q_cols = q_size(d), embedding = embedding_size(d);
  const std::int64_t normed_cols = std::max(hidden, d.parallel ? 0 : q_cols);
  const std::size_t qkv_bytes = size(DType::f32, rows, qkv_size(d));

  std::size_t end = 0;
  const auto place = [&end](std::size_t region) { return std::exchange(end, end + region); };
  const auto place_attended = [&](std::size_t shared, std::int64_t n) {
    return d.parallel ? place(size(compute, n, q_cols)) : shared;
  };
  residual = place(size(DType::f32, rows, hidden));
  normed = place(size(compute, rows, normed_cols));
  attended = place_attended(normed, rows);
  const MixtureDescription& m = d.mixture;
  const std::int64_t slots = rows * m.experts_per_token;
  const std::size_t gathered = m.num_experts > 0 ? size(compute, slots, hidden) : 0;
  wide = place(std::max({qkv_bytes + size(compute, rows, q_cols), size(compute, rows, mlp_columns(d)),
                         size(compute, rows, embedding), gathered + size(compute, slots, m.expert_size),
                         size(compute, rows, m.shared_size), m.num_experts > 0 ? size(DType::f32, rows, hidden) : 0}));
  q = wide + qkv_bytes;
  inner = wide + gathered;
  routes = place(size(DType::i32, slots, 1));
  shares = place(m.num_experts > 0 ? size(DType::f32, rows, m.experts_per_token + 1) : 0);
  router_logits = place(m.num_experts > 0 ? size(DType::f32, rows, router_columns(m)) : 0);
  const bool branches = !adds_at_once(d) || d.embedding_size > 0 || d.position.learned > 0;
  branch = place(branches ? size(DType::f32, rows, std::max(hidden, embedding)) : 0);
  tail_residual = place(size(DType::f32, logit_rows, hidden));
  tail_normed = place(size(compute, logit_rows, normed_cols));
  tail_attended = place_attended(tail_normed, logit_rows);
  logits = place(d.head ? size(DType::f32, logit_rows, shard.rank.rank == 0 ? d.vocab_size : shard.vocab.size()) : 0);
  const std::vector<std::int32_t>& sizes = d.embedding.dense_sizes;
  const std::int64_t widest = sizes.empty() ? 0 : std::max<std::int64_t>(hidden, *std::ranges::max_element(sizes));
  dense = place(size(DType::f32, logit_rows, widest));
  dense_input = place(size(compute, logit_rows, widest));
  const ExchangeSizes sizes_exchanged(whole, shard, rows, logit_rows);
  exchanged = place(sizes_exchanged.sent + sizes_exchanged.received);
  bytes = end;
}

Activations::Activations(const ModelDescription& whole, const Shard& shard, Backend& backend, const MostRows& most)
    : d_(part_of(whole, shard)),
      compute_(backend.compute_dtype()),
      layout_(whole, shard, compute_, most),
      sent_bytes_(ExchangeSizes(whole, shard, layout_.rows, layout_.logit_rows).sent),
      logit_columns_(shard.rank.rank == 0 ? whole.vocab_size : shard.vocab.size()),
      buffer_(backend.allocate(layout_.bytes)) {}

Tensor Activations::view(std::size_t offset, DType dtype, std::int64_t rows, std::int64_t cols) const noexcept {
  return {static_cast<std::byte*>(buffer_->data()) + offset, dtype, rows, cols, cols};
}

LayerScratch Activations::scratch(std::int64_t rows, std::size_t residual, std::size_t normed,
                                  std::size_t attended) const noexcept {
  return {view(residual, DType::f32, rows, d_.hidden_size),
          view(normed, compute_, rows, d_.hidden_size),
          view(attended, compute_, rows, q_size(d_)),
          view(layout_.wide, compute_, rows, d_.mlp.intermediate_size),
          view(layout_.branch, DType::f32, rows, d_.hidden_size),
          view(layout_.wide, compute_, rows, embedding_size(d_))};
}

LayerScratch Activations::layer(std::int64_t rows) const noexcept {
  return scratch(rows, layout_.residual, layout_.normed, layout_.attended);
}

LayerScratch Activations::tail(std::int64_t rows) const noexcept {
  return scratch(rows, layout_.tail_residual, layout_.tail_normed, layout_.tail_attended);
}

MixtureScratch Activations::mixture(std::int64_t rows) const noexcept {
  const MixtureDescription& m = d_.mixture;
  const std::int64_t slots = rows * m.experts_per_token, columns = router_columns(m);
  return {view(layout_.wide, compute_, slots, d_.hidden_size),
          view(layout_.inner, compute_, slots, m.expert_size),
          view(layout_.wide, compute_, rows, m.shared_size),
          view(layout_.wide, DType::f32, rows, d_.hidden_size),
          view(layout_.router_logits, DType::f32, rows, columns),
          {view(layout_.routes, DType::i32, rows, m.experts_per_token),
           view(layout_.shares, DType::f32, rows, m.experts_per_token + columns - m.num_experts)}};
}

Tensor Activations::embedded(std::int64_t rows) const noexcept {
  return view(layout_.branch, DType::f32, rows, embedding_size(d_));
}

Tensor Activations::qkv(std::int64_t rows) const noexcept { return view(layout_.wide, DType::f32, rows, qkv_size(d_)); }

Tensor Activations::q(std::int64_t rows) const noexcept { return view(layout_.q, compute_, rows, q_size(d_)); }

Tensor Activations::dense(std::int64_t rows, std::int64_t cols) const noexcept {
  return view(layout_.dense, DType::f32, rows, cols);
}

Tensor Activations::dense_input(std::int64_t rows, std::int64_t cols) const noexcept {
  return view(layout_.dense_input, compute_, rows, cols);
}

Tensor Activations::logits(std::int64_t rows) const noexcept {
  return view(layout_.logits, DType::f32, rows, logit_columns_);
}

float* Activations::sent() const noexcept {
  return static_cast<float*>(view(layout_.exchanged, DType::f32, 0, 0).data);
}
float* Activations::received() const noexcept {
  return static_cast<float*>(view(layout_.exchanged + sent_bytes_, DType::f32, 0, 0).data);
}

}  // namespace pagedcore
