#include "cpu/attention/batch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/text.hpp"
#include "cpu/attention/attention.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {
namespace attention_detail {
namespace {

// Returns the number of table entries that the range needs.
std::size_t check_range(const BatchView& view, std::size_t i, std::int64_t next_row, std::int32_t block_size,
                        std::size_t entries) {
  const TokenRange& range = view.ranges[i];
  if (range.num_rows < 1)
    throw InvalidArgument(str("token range ", i, " has ", range.num_rows, " rows; a range has at least 1"));
  if (range.first_row != next_row)
    throw InvalidArgument(str("token range ", i, " starts at row ", range.first_row, ", expected row ", next_row,
                              ": ranges cover the rows in order, each once"));
  if (next_row + range.num_rows > static_cast<std::int64_t>(view.tokens.size()))
    throw InvalidArgument(str("token range ", i, " ends at row ", next_row + range.num_rows, " of a batch of ",
                              view.tokens.size(), " rows"));
  if (range.first_position < 0)
    throw InvalidArgument(
        str("token range ", i, " starts at position ", range.first_position, "; positions start at 0"));
  const std::int64_t end = std::int64_t{range.first_position} + range.num_rows;
  if (end > std::numeric_limits<std::int32_t>::max() / 2)
    throw InvalidArgument(str("token range ", i, " ends at position ", end, ", more than ",
                              std::numeric_limits<std::int32_t>::max() / 2));
  const std::int64_t blocks = (end + block_size - 1) / block_size;
  if (range.table_offset < 0 || range.table_offset + blocks > static_cast<std::int64_t>(entries))
    throw InvalidArgument(str("token range ", i, " needs ", blocks, " blocks for ", end, " positions of ", block_size,
                              " tokens a block, at offset ", range.table_offset, " of ", entries,
                              " block table entries"));
  return static_cast<std::size_t>(blocks);
}

}  // namespace

PreparedBatch::PreparedBatch(const BatchView& view, std::int32_t block_size)
    : tokens_(view.tokens.begin(), view.tokens.end()),
      ranges_(view.ranges.begin(), view.ranges.end()),
      tables_(view.block_tables.begin(), view.block_tables.end()),
      block_size_(block_size),
      num_groups_(view.num_groups),
      entries_(tables_.size() / static_cast<std::size_t>(std::max(1, view.num_groups))) {
  if (block_size < 1) throw InvalidArgument(str("block size ", block_size, ": a block holds at least 1 token"));
  if (num_groups_ < 1 || entries_ * static_cast<std::size_t>(num_groups_) != tables_.size())
    throw InvalidArgument(str(tables_.size(), " block table entries for ", num_groups_,
                              " groups of layers: as many for each, at least 1"));
  positions_.reserve(tokens_.size());
  std::int64_t next_row = 0;
  for (std::size_t i = 0; i < ranges_.size(); ++i) {
    const TokenRange& range = ranges_[i];
    const std::size_t blocks = check_range(view, i, next_row, block_size, entries_);
    for (std::int32_t group = 0; group < num_groups_; ++group) {
      for (const std::uint32_t block : tables(group).subspan(static_cast<std::size_t>(range.table_offset), blocks)) {
        if (block != raw(kNoBlock)) largest_block_ = std::max(largest_block_, block);
      }
    }
    for (std::int32_t r = 0; r < range.num_rows; ++r) positions_.push_back(range.first_position + r);
    for (std::int32_t r = 0; r < range.num_rows;) {
      const std::int32_t in_group = (range.first_position + r) % kGroup;
      const std::int32_t next = std::min(range.num_rows, r + kGroup - in_group);
      chunks_.push_back({range.first_row + r, range.first_row + next, static_cast<std::int32_t>(i)});
      r = next;
    }
    next_row += range.num_rows;
  }
  if (next_row != static_cast<std::int64_t>(tokens_.size()))
    throw InvalidArgument(str("token ranges cover ", next_row, " of ", tokens_.size(), " rows"));
}

void PreparedBatch::check_blocks(std::uint32_t num_blocks) const {
  if (largest_block_ >= num_blocks)
    throw InvalidArgument(
        str("a block table names block ", largest_block_, " of a KV storage that has ", num_blocks, " blocks"));
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
  if (rows() <= kGroup) {
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
  work_.push_back(std::make_unique<WorkList>(shape, ranges_, tables(shape.tables), block_size_));
  return *work_.back();
}

}  // namespace attention_detail

std::unique_ptr<Batch> make_batch(const BatchView& view, std::int32_t block_size) {
  return std::make_unique<attention_detail::PreparedBatch>(view, block_size);
}

std::span<const TokenId> batch_tokens(const Batch& batch) noexcept {
  return static_cast<const attention_detail::PreparedBatch&>(batch).tokens();
}

}  // namespace pagedcore::cpu
