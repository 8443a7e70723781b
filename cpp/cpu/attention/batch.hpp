// PreparedBatch: a step's description on the host, and what its layers share (rotary angles, work lists).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/checks.hpp"
#include "cpu/attention/kernel.hpp"
#include "cpu/attention/work_list.hpp"
#include "cpu/thread_pool.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu::attention_detail {

/// cos and sin of every row's angles, [rows][num_frequencies] each, times the magnitude.
struct RotaryTable {
  const void* inv_freq = nullptr;  // identifies the table within its step
  std::int64_t num_frequencies = 0;
  float magnitude = 0.0f;
  std::vector<float> cos, sin;
};

class PreparedBatch final : public Batch {
 public:
  PreparedBatch(const BatchView& view, std::int32_t block_size);

  std::int64_t rows() const noexcept override { return facts_.rows; }
  const BatchFacts& facts() const noexcept { return facts_; }
  const std::vector<TokenId>& tokens() const noexcept { return tokens_; }
  const std::vector<TokenRange>& ranges() const noexcept { return ranges_; }
  /// Those of one layer group.
  std::span<const std::uint32_t> tables(std::int32_t layer_group) const noexcept {
    return std::span(tables_).subspan(static_cast<std::size_t>(layer_group) * entries_, entries_);
  }
  std::int32_t block_size() const noexcept { return facts_.block_size; }
  /// [rows]
  const std::vector<std::int32_t>& positions() const noexcept { return positions_; }
  /// Rows cut so that no two chunks write the same tile of 16 tokens: [first, last) of each chunk, and its range.
  struct Chunk {
    std::int32_t first_row, last_row, range;
  };
  const std::vector<Chunk>& chunks() const noexcept { return chunks_; }

  /// Made on first use in the step and kept for its other layers. The thread that drives the backend calls these.
  const RotaryTable& rotary(ThreadPool& pool, const RopeParams& rope) const;
  WorkList& work(const WorkShape& shape) const;

 private:
  BatchFacts facts_;
  std::vector<TokenId> tokens_;
  std::vector<TokenRange> ranges_;
  std::vector<std::uint32_t> tables_;
  std::vector<std::int32_t> positions_;
  std::vector<Chunk> chunks_;
  std::size_t entries_;  // of one layer group
  mutable std::vector<std::unique_ptr<RotaryTable>> rotary_;
  mutable std::vector<std::unique_ptr<WorkList>> work_;
};

}  // namespace pagedcore::cpu::attention_detail
