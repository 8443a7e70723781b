#include "model/exchange.hpp"

#include <algorithm>

#include "model/weights.hpp"

namespace pagedcore {
namespace {

std::size_t most_parts(const Cuts& cuts, std::int32_t rank) {
  return cuts.ranks[static_cast<std::size_t>(rank)].parts.size();
}

std::span<std::byte> bytes_at(float* at, std::int64_t count) {
  return std::as_writable_bytes(std::span(at, static_cast<std::size_t>(count)));
}

}  // namespace

ExchangeSizes::ExchangeSizes(const ModelDescription& d, const Shard& shard, std::int64_t rows,
                             std::int64_t logit_rows) {
  if (shard.whole()) return;
  const std::int32_t ranks = shard.rank.size;
  std::size_t own = 0, all = 0;
  std::vector<Cuts> products{attention_cuts(d, ranks), inner_cuts(d.mlp.intermediate_size, ranks)};
  if (d.mixture.num_experts > 0) products.push_back(inner_cuts(d.mixture.expert_size, ranks));
  if (d.mixture.shared_size > 0) products.push_back(inner_cuts(d.mixture.shared_size, ranks));
  for (const Cuts& cuts : products) {
    own = std::max(own, most_parts(cuts, shard.rank.rank));
    all = std::max(all, cuts.nodes.size());
  }
  const std::int64_t hidden = d.hidden_size, embedding = embedding_size(d), finished = (rows + ranks - 1) / ranks;
  const bool rows_of_heads = d.attention.qk_norm && d.attention.qk_norm_span == QkNormSpan::row;
  const std::int64_t heads = rows_of_heads ? std::max(q_size(d), kv_size(d)) : 0;
  const std::int64_t others = shard.rank.rank == 0 ? d.vocab_size - shard.vocab.size() : 0;
  const auto bytes = [](std::int64_t floats) {
    return (static_cast<std::size_t>(floats) * sizeof(float) + 63) / 64 * 64;
  };
  sent = std::max({bytes(rows * static_cast<std::int64_t>(own) * hidden), bytes(rows * heads)});
  received = std::max({bytes(finished * static_cast<std::int64_t>(all) * hidden), bytes(rows * embedding),
                       bytes(rows * heads), bytes(d.head ? logit_rows * others : 0)});
}

Exchange::Exchange(const ModelDescription& d, const Shard& shard, Backend& backend, float* sent, float* received)
    : backend_(backend),
      hidden_(d.hidden_size),
      head_(d.attention.head_dim),
      rank_(shard.rank.rank),
      sent_(sent),
      received_(received),
      sends_(static_cast<std::size_t>(shard.rank.size)),
      receives_(static_cast<std::size_t>(shard.rank.size)) {
  for (std::int32_t rank = 0; rank < shard.rank.size; ++rank) shards_.push_back(shard_of(d, {rank, shard.rank.size}));
}

Tensor Exchange::matrix(float* at, std::int64_t rows, std::int64_t cols) const noexcept {
  return {at, DType::f32, rows, cols, cols};
}

Interval Exchange::rows_of(std::int64_t rows, std::size_t rank) const noexcept {
  return share(rows, shards_[rank].rank);
}

Tensor Exchange::partial(std::int64_t rows, std::size_t index, std::size_t count) const noexcept {
  const auto parts = static_cast<std::int64_t>(count);
  return matrix(sent_, rows, parts * hidden_).slice_cols(static_cast<std::int64_t>(index) * hidden_, hidden_);
}

void Exchange::reduce(const Tensor& out, const Cuts& cuts, const Epilogue& epilogue) {
  const auto me = static_cast<std::size_t>(rank_);
  const Interval mine = rows_of(out.rows, me);
  const auto width_of = [&](std::size_t rank) {
    return static_cast<std::int64_t>(cuts.ranks[rank].parts.size()) * hidden_;
  };
  values_.clear();
  float* to = received_;
  for (std::size_t rank = 0; rank < ranks(); ++rank) {
    const Interval theirs = rows_of(out.rows, rank);
    const std::int64_t width = width_of(rank);
    sends_[rank] = bytes_at(sent_ + theirs.first * width_of(me), theirs.size() * width_of(me));
    float* const at = rank == me ? sent_ + mine.first * width : to;
    receives_[rank] = bytes_at(at, mine.size() * width);
    if (rank != me) to += mine.size() * width;
    for (std::int64_t part = 0; part * hidden_ < width; ++part)
      values_.push_back(matrix(at, mine.size(), width).slice_cols(part * hidden_, hidden_));
  }
  comm_->all_to_all(sends_, receives_);
  backend_.combine(out.slice_rows(mine.first, mine.size()), {cuts.nodes, values_, cuts.num_leaves}, epilogue);

  for (std::size_t rank = 0; rank < ranks(); ++rank) {
    const Interval theirs = rows_of(out.rows, rank);
    const Tensor rows = out.slice_rows(theirs.first, theirs.size());
    receives_[rank] = bytes_at(static_cast<float*>(rows.data), theirs.size() * out.cols);
  }
  comm_->all_gather(receives_[me], receives_);
}

void Exchange::share_embedding(const Tensor& out, std::span<const TokenId> tokens) {
  places_.resize(tokens.size());
  own_.clear();
  std::int32_t place = 0;
  Tensor mine;
  for (std::size_t rank = 0; rank < ranks(); ++rank) {
    const Interval& vocab = shards_[rank].vocab;
    const std::int32_t first = place;
    for (std::size_t row = 0; row < tokens.size(); ++row) {
      if (tokens[row] < vocab.first || tokens[row] >= vocab.end) continue;
      places_[row] = place++;
      if (static_cast<int>(rank) == rank_) own_.push_back(static_cast<std::int32_t>(row));
    }
    const Tensor rows = matrix(received_ + first * out.cols, place - first, out.cols);
    if (static_cast<int>(rank) == rank_) mine = rows;
    receives_[rank] = bytes_at(static_cast<float*>(rows.data), rows.rows * rows.cols);
  }
  if (mine.rows > 0) backend_.gather_rows(mine, out, own_);
  comm_->all_gather(receives_[static_cast<std::size_t>(rank_)], receives_);
  backend_.gather_rows(out, matrix(received_, out.rows, out.cols), places_);
}

Tensor Exchange::gather(const Tensor& own, std::span<const Interval> ranges, std::int64_t columns) {
  const auto me = static_cast<std::size_t>(rank_);
  float* to = received_;
  Tensor packed;
  for (std::size_t rank = 0; rank < ranks(); ++rank) {
    const std::int64_t count = own.rows * ranges[rank].size();
    receives_[rank] = bytes_at(to, count);
    if (rank == me) packed = matrix(to, own.rows, ranges[rank].size());
    to += count;
  }
  if (packed.cols > 0) backend_.convert(packed, own);
  comm_->all_gather(receives_[me], receives_);
  const Tensor whole = matrix(sent_, own.rows, columns);
  for (std::size_t rank = 0; rank < ranks(); ++rank) {
    const Interval& range = ranges[rank];
    if (range.size() == 0) continue;
    backend_.convert(whole.slice_cols(range.first, range.size()),
                     matrix(reinterpret_cast<float*>(receives_[rank].data()), own.rows, range.size()));
  }
  return whole;
}

void Exchange::gather_logits(const Tensor& whole, const Tensor& own) {
  float* to = received_;
  for (std::size_t rank = 0; rank < ranks(); ++rank) {
    sends_[rank] = {};
    receives_[rank] = {};
    if (rank == 0 || rank_ != 0) continue;
    receives_[rank] = bytes_at(to, own.rows * shards_[rank].vocab.size());
    to += own.rows * shards_[rank].vocab.size();
  }
  if (rank_ != 0) sends_[0] = bytes_at(static_cast<float*>(own.data), own.rows * own.cols);
  comm_->all_to_all(sends_, receives_);
  if (rank_ != 0) return;
  for (std::size_t rank = 1; rank < ranks(); ++rank) {
    const Interval& vocab = shards_[rank].vocab;
    backend_.convert(whole.slice_cols(vocab.first, vocab.size()),
                     matrix(reinterpret_cast<float*>(receives_[rank].data()), own.rows, vocab.size()));
  }
}

std::vector<Interval> Exchange::query_columns() const {
  std::vector<Interval> columns;
  for (const Shard& shard : shards_) columns.push_back({shard.heads.first * head_, shard.heads.end * head_});
  return columns;
}

std::vector<Interval> Exchange::key_columns() const {
  std::vector<Interval> columns;
  for (const Shard& shard : shards_)
    columns.push_back({shard.owned_kv_heads.first * head_, shard.owned_kv_heads.end * head_});
  return columns;
}

}  // namespace pagedcore
