#include "engine/pooled_rows.hpp"

#include <cmath>

namespace pagedcore {

bool PooledRows::wants(std::size_t position, std::size_t coming) const noexcept {
  const std::size_t taken = taken_ + coming;
  if (taken == num_wanted()) return false;
  switch (pooling_) {
    case Pooling::mean:
      return position == taken;
    case Pooling::cls:
      return position == 0;
    case Pooling::last:
    case Pooling::automatic:
      break;
  }
  return position + 1 == num_rows_;
}

void PooledRows::add(std::size_t position, std::span<const float> row) noexcept {
  if (!wants(position)) return;
  for (std::size_t i = 0; i < row.size(); ++i) sum_[i] += row[i];
  ++taken_;
}

std::vector<float> PooledRows::pooled() const {
  std::vector<float> mean(sum_.size());
  for (std::size_t i = 0; i < sum_.size(); ++i) mean[i] = static_cast<float>(sum_[i] / static_cast<double>(taken_));
  return mean;
}

void finish_embedding(std::vector<float>& embedding, const EmbeddingParams& params) {
  if (params.dimensions > 0) embedding.resize(params.dimensions);
  if (!params.normalize) return;
  double squares = 0.0;
  for (const float x : embedding) squares += double{x} * x;
  if (squares == 0.0) return;
  const double scale = 1.0 / std::sqrt(squares);
  for (float& x : embedding) x = static_cast<float>(x * scale);
}

}  // namespace pagedcore
