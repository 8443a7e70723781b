#include "backend/batch.hpp"

#include <algorithm>
#include <cstring>

#include "base/text.hpp"
#include "kernels/rope_cache.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cuda {

std::size_t ArrayUpload::add_bytes(std::span<const std::byte> values) {
  const std::size_t offset = (bytes_.size() + 15) / 16 * 16;
  bytes_.resize(offset);
  bytes_.insert(bytes_.end(), values.begin(), values.end());
  return offset;
}

DeviceMemory ArrayUpload::send(Device& device, Staging& staging) {
  DeviceMemory memory(device, std::max<std::size_t>(16, bytes_.size()));
  staging.upload(memory.data(), bytes_, device.stream());
  return memory;
}

CudaBatch::CudaBatch(Device& device, Staging& staging, const BatchView& view, std::int32_t block_size)
    : device_(device),
      staging_(staging),
      facts_(checked_batch(view, block_size)),
      tokens_(view.tokens.begin(), view.tokens.end()),
      ranges_(view.ranges.begin(), view.ranges.end()),
      tables_(raw_ids(view.block_tables)),
      entries_(tables_.size() / static_cast<std::size_t>(facts_.num_layer_groups)) {
  std::vector<std::int32_t> row_tables;
  host_positions_.reserve(tokens_.size());
  row_tables.reserve(tokens_.size());
  for (const TokenRange& range : ranges_) {
    for (std::int32_t i = 0; i < range.num_rows; ++i) {
      host_positions_.push_back(range.first_position + i);
      row_tables.push_back(range.table_offset);
    }
  }
  ArrayUpload arrays;
  tokens_at_ = arrays.add<TokenId>(tokens_);
  positions_at_ = arrays.add<std::int32_t>(host_positions_);
  row_tables_at_ = arrays.add<std::int32_t>(row_tables);
  tables_at_ = arrays.add<std::uint32_t>(tables_);
  memory_ = arrays.send(device, staging);
}

const CudaBatch::Rotary& CudaBatch::rotary(const RopeParams& rope) const {
  for (const auto& r : rotary_) {
    if (r->inv_freq == rope.inv_freq->data && r->num_frequencies == rope.inv_freq->cols &&
        r->magnitude == rope.magnitude)
      return *r;
  }
  const std::int64_t count = rows() * rope.inv_freq->cols;
  auto made = std::make_unique<Rotary>(
      Rotary{rope.inv_freq->data, rope.inv_freq->cols, rope.magnitude,
             DeviceMemory(device_, std::max<std::size_t>(16, static_cast<std::size_t>(count) * 2 * sizeof(float)))});
  auto* cos = reinterpret_cast<float*>(made->angles.data());
  RotaryTableArgs args;
  args.cos = cos;
  args.sin = cos + count;
  args.inv_freq = static_cast<const float*>(rope.inv_freq->data);
  args.positions = positions();
  args.rows = static_cast<std::int32_t>(rows());
  args.num_frequencies = static_cast<std::int32_t>(rope.inv_freq->cols);
  args.magnitude = rope.magnitude;
  device_.check(launch_rotary_table(args, device_.stream()), "the rotary table");
  rotary_.push_back(std::move(made));
  return *rotary_.back();
}

const CudaBatch::Work& CudaBatch::work(const AttentionShape& shape, std::int32_t window,
                                       std::size_t state_bytes) const {
  for (const auto& w : work_) {
    if (w->shape.num_heads == shape.num_heads && w->shape.num_kv_heads == shape.num_kv_heads &&
        w->shape.head_dim == shape.head_dim && w->shape.layer_group == shape.layer_group && w->window == window)
      return *w;
  }
  AttentionPlanShape plan_shape;
  plan_shape.num_heads = shape.num_heads;
  plan_shape.num_kv_heads = shape.num_kv_heads;
  plan_shape.head_dim = shape.head_dim;
  plan_shape.block_size = facts_.block_size;
  plan_shape.window = window;
  plan_shape.parallelism = 2 * device_.multiprocessors();
  plan_shape.max_states =
      static_cast<std::int64_t>(state_bytes) / attention_state_bytes(1, shape.num_heads, shape.head_dim);
  const auto tables = std::span(tables_).subspan(static_cast<std::size_t>(shape.layer_group) * entries_, entries_);
  const AttentionPlan plan = plan_attention(ranges_, tables, plan_shape);

  ArrayUpload arrays;
  const std::size_t rows_at = arrays.add<std::int32_t>(plan.rows);
  const std::size_t states_at = arrays.add<std::int32_t>(plan.row_states);
  const std::size_t narrow_at = arrays.add<AttentionItem>(plan.narrow);
  const std::size_t wide_at = arrays.add<AttentionItem>(plan.wide);
  const std::size_t split_at = arrays.add<std::int32_t>(plan.split_rows);
  auto made = std::make_unique<Work>(Work{shape, window, arrays.send(device_, staging_), {}, {}});
  made->states = DeviceMemory(
      device_, static_cast<std::size_t>(attention_state_bytes(plan.num_states, shape.num_heads, shape.head_dim)));
  AttentionArgs& args = made->args;
  args.tables = this->tables(shape.layer_group);
  args.positions = positions();
  args.rows = at<std::int32_t>(made->arrays, rows_at);
  args.row_states = at<std::int32_t>(made->arrays, states_at);
  args.narrow = at<AttentionItem>(made->arrays, narrow_at);
  args.wide = at<AttentionItem>(made->arrays, wide_at);
  args.split_rows = at<std::int32_t>(made->arrays, split_at);
  args.num_narrow = static_cast<std::int32_t>(plan.narrow.size());
  args.num_wide = static_cast<std::int32_t>(plan.wide.size());
  args.num_split_rows = static_cast<std::int32_t>(plan.split_rows.size());
  args.states = reinterpret_cast<float*>(made->states.data());
  work_.push_back(std::move(made));
  return *work_.back();
}

}  // namespace pagedcore::cuda
