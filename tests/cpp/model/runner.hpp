// Feeds sequences to a Model in chosen pieces, through block tables in shuffled order, and keeps every row's logits.
#pragma once

#include <algorithm>

#include "tiny_models.hpp"

namespace tiny {

/// The next `count` tokens of sequence `sequence`.
struct Chunk {
  std::size_t sequence;
  std::size_t count;
};

class Runner {
 public:
  static constexpr std::int32_t block_size = 16;

  Runner(const TinyModel& tiny, const CpuOptions& options, std::vector<std::vector<TokenId>> sequences,
         std::uint32_t max_rows = 128, std::uint32_t max_logit_rows = 8, const ModelRank& rank = {})
      : backend(make_cpu_backend(options)),
        model(tiny.d, tiny.weights, *backend, max_rows, max_logit_rows, rank),
        sequences_(std::move(sequences)),
        computed_(sequences_.size()),
        logits(sequences_.size()) {
    groups = layer_groups(tiny.d);
    const auto blocks = static_cast<std::uint32_t>(sequences_.size() * blocks_each * groups.windows.size());
    for (std::uint32_t i = 0; i < blocks; ++i) tables_.push_back(BlockId{i});  // [group][sequence][block]
    std::shuffle(tables_.begin(), tables_.end(), std::mt19937(7));
    kv = backend->allocate_kv(model.kv_shape(block_size), blocks);
    for (std::size_t s = 0; s < sequences_.size(); ++s) logits[s].resize(sequences_[s].size());
  }

  /// One step. With `last_only`, asks for the logits of each chunk's last row only.
  void step(const std::vector<Chunk>& chunks, bool last_only = false) {
    std::vector<TokenId> tokens;
    std::vector<TokenRange> ranges;
    std::vector<std::int32_t> wanted;
    std::vector<std::pair<std::size_t, std::size_t>> place;  // of each wanted row: sequence, position
    for (const auto& [sequence, count] : chunks) {
      const std::size_t position = computed_[sequence];
      ranges.push_back({static_cast<std::int32_t>(tokens.size()), static_cast<std::int32_t>(count),
                        static_cast<std::int32_t>(position), static_cast<std::int32_t>(sequence * blocks_each)});
      for (std::size_t i = 0; i < count; ++i) {
        if (!last_only || i + 1 == count) {
          wanted.push_back(static_cast<std::int32_t>(tokens.size()));
          place.emplace_back(sequence, position + i);
        }
        tokens.push_back(sequences_[sequence].at(position + i));
      }
      computed_[sequence] += count;
    }
    // Every layer group has tables of its own, without what no row of the step sees through its window.
    std::vector<BlockId> tables = tables_;
    for (std::size_t g = 0; g < groups.windows.size(); ++g) {
      for (const TokenRange& range : ranges) {
        const auto window = static_cast<std::int32_t>(groups.windows[g]);
        if (window == 0) continue;
        const std::size_t first = g * sequences_.size() * blocks_each + static_cast<std::size_t>(range.table_offset);
        for (std::int32_t b = 0; (b + 1) * block_size <= range.first_position - window + 1; ++b) {
          tables[first + static_cast<std::size_t>(b)] = kNoBlock;
        }
      }
    }
    const auto batch =
        backend->prepare({tokens, ranges, tables, static_cast<std::int32_t>(groups.windows.size())}, block_size);
    model.forward({batch.get(), wanted, {}, {}, tokens}, *kv, [&](std::int64_t first, const Tensor& piece) {
      const auto* values = static_cast<const float*>(backend->host_view(piece));
      for (std::int64_t i = 0; i < piece.rows; ++i) {
        const auto& [sequence, position] = place[static_cast<std::size_t>(first + i)];
        logits[sequence][position].assign(values + i * piece.stride, values + i * piece.stride + piece.cols);
      }
    });
  }

  static constexpr std::size_t blocks_each = 8;
  LayerGroups groups;
  std::unique_ptr<Backend> backend;
  Model model;
  std::unique_ptr<KvStorage> kv;

 private:
  std::vector<std::vector<TokenId>> sequences_;
  std::vector<std::size_t> computed_;
  std::vector<BlockId> tables_;

 public:
  std::vector<std::vector<std::vector<float>>> logits;  // [sequence][position][vocab]; empty where not asked for
};

inline std::vector<TokenId> random_tokens(std::size_t count, std::int32_t vocab, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& t : tokens) t = static_cast<TokenId>(random() % static_cast<std::uint32_t>(vocab));
  return tokens;
}

}  // namespace tiny
