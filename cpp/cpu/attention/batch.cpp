#include "cpu/attention/batch.hpp"

#include <algorithm>
#include <cmath>

#include "base/text.hpp"
#include "cpu/attention/attention.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {
namespace attention_detail {
PreparedBatch::PreparedBatch(const BatchView& view, std::int32_t block_size)
    : facts_(checked_batch(view, block_size)),
      tokens_(view.tokens.begin(), view.tokens.end()),
      ranges_(view.ranges.begin(), view.ranges.end()),
      tables_(raw_ids(view.block_tables)),
      entries_(tables_.size() / static_cast<std::size_t>(facts_.num_layer_groups)) {
  positions_.reserve(tokens_.size());
  for (std::size_t i = 0; i < ranges_.size(); ++i) {
    const TokenRange& range = ranges_[i];
    for (std::int32_t r = 0; r < range.num_rows; ++r) positions_.push_back(range.first_position + r);
    for (std::int32_t r = 0; r < range.num_rows;) {
      const std::int32_t in_tile = (range.first_position + r) % kTileTokens;
      const std::int32_t next = std::min(range.num_rows, r + kTileTokens - in_tile);
      chunks_.push_back({range.first_row + r, range.first_row + next, static_cast<std::int32_t>(i)});
      r = next;
    }
  }
}

const RotaryTable& PreparedBatch::rotary(ThreadPool& pool, const RopeParams& rope) const {
  for (const auto& t : rotary_) {
    if (t->inv_freq == rope.inv_freq->data && t->num_frequencies == rope.inv_freq->cols &&
        t->magnitude == rope.magnitude)
      return *t;
  }
  auto table = std::make_unique<RotaryTable>();
  table->inv_freq = rope.inv_freq->data;
  table->num_frequencies = rope.inv_freq->cols;
  table->magnitude = rope.magnitude;
  const auto width = static_cast<std::size_t>(table->num_frequencies);
  table->cos.resize(tokens_.size() * width);
  table->sin.resize(tokens_.size() * width);
  const float* inv_freq = static_cast<const float*>(rope.inv_freq->data);
  const auto fill = [&](std::int64_t row, int) {
    // The angle is rounded to f32, as in the reference implementation: the model was trained with that rounding.
    const auto position = static_cast<float>(positions_[static_cast<std::size_t>(row)]);
    float* cos = table->cos.data() + static_cast<std::size_t>(row) * width;
    float* sin = table->sin.data() + static_cast<std::size_t>(row) * width;
    for (std::size_t i = 0; i < width; ++i) {
      const float angle = position * inv_freq[i];
      cos[i] = std::cos(angle) * rope.magnitude;
      sin[i] = std::sin(angle) * rope.magnitude;
    }
  };
  if (rows() <= kTileTokens) {
    for (std::int64_t row = 0; row < rows(); ++row) fill(row, 0);
  } else {
    pool.for_each(rows(), fill);
  }
  rotary_.push_back(std::move(table));
  return *rotary_.back();
}

WorkList& PreparedBatch::work(const WorkShape& shape) const {
  for (const auto& w : work_) {
    if (w->shape == shape) return *w;
  }
  work_.push_back(std::make_unique<WorkList>(shape, ranges_, tables(shape.layer_group), facts_.block_size));
  return *work_.back();
}

}  // namespace attention_detail

std::unique_ptr<Batch> make_batch(const BatchView& view, std::int32_t block_size) {
  return std::make_unique<attention_detail::PreparedBatch>(view, block_size);
}

std::span<const std::int32_t> batch_positions(const Batch& batch) noexcept {
  return static_cast<const attention_detail::PreparedBatch&>(batch).positions();
}

std::span<const TokenId> batch_tokens(const Batch& batch) noexcept {
  return static_cast<const attention_detail::PreparedBatch&>(batch).tokens();
}

}  // namespace pagedcore::cpu
