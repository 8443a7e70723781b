// Sequences of random keys, values and queries in a paged cache, attention over them by the kernels under test, and the
// same in double.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "device_array.hpp"
#include "kernels/attention_plan.hpp"

namespace cuda_test {

using namespace pagedcore::cuda;

struct WorldShape {
  ComputeType compute = ComputeType::f16;
  KvType kv = KvType::f16;
  int head_dim = 64, num_heads = 4, num_kv_heads = 2;
  int block_size = 16, num_blocks = 64;
  int window = 0;
  float scale = 0.0f;  // 0: 1 / sqrt(head_dim)
  float softcap = 0.0f;
  int row_gap = 8;  // elements between rows of q, and of the output
};

/// How a run is cut into work: none of it may change a bit.
struct Cut {
  int parallelism = 1;  // 1: no context is split
  std::int64_t max_states = 1 << 16;
};

/// Rows [first, first + count) of a sequence's positions.
struct Rows {
  int sequence, first, count;
};

using Bits = std::vector<std::uint16_t>;  // of a row of the output, all heads

double to_double(ComputeType type, std::uint16_t bits);
std::uint16_t to_bits(ComputeType type, float x);
/// A standard normal number, the same for the same key.
float normal(std::uint64_t key);

class PagedWorld {
 public:
  explicit PagedWorld(const WorldShape& shape);

  /// A sequence of `length` tokens in physical blocks `blocks`. What it holds follows from `seed` and the position;
  /// a block written before is written again, so sequences that share blocks share a seed.
  int add(int length, std::vector<std::uint32_t> blocks, std::uint64_t seed);
  /// The same up to position `from`, other tokens from there on, in its own blocks.
  int fork(int sequence, int from, int length, std::vector<std::uint32_t> own_blocks, std::uint64_t seed);

  /// Gives a token of a KV head what rope_and_cache writes where a value is not finite: NaN keys, zero values.
  void break_token(int sequence, int position, int kv_head);

  /// The outputs of rows, by (sequence, position).
  std::map<std::pair<int, int>, Bits> run(std::span<const Rows> batch, const Cut& cut = {}) const;
  AttentionPlan plan(std::span<const Rows> batch, const Cut& cut = {}) const;
  /// Of one row, in double over what the cache holds.
  std::vector<double> reference(int sequence, int position) const;

  const WorldShape& shape() const { return shape_; }
  KvTile tile() const { return {shape_.kv, shape_.head_dim, shape_.block_size}; }
  std::int64_t block_bytes() const { return kv_block_bytes(tile(), 1, shape_.num_kv_heads); }
  std::vector<std::byte>& cache() { return cache_; }
  /// Where blocks are in memory, for storages that are not dense: from one to the next, and the first.
  void place(std::byte* data, std::int64_t stride) { outside_ = data, stride_ = stride; }

  std::uint16_t query(int sequence, int position, int head, int d) const;
  /// As a row of the cache holds it.
  double stored(int sequence, int position, int kv_head, int d, bool value) const;

 private:
  struct Sequence {
    int length;
    std::vector<std::uint32_t> blocks;
    std::vector<std::uint64_t> seeds;  // of every position
  };
  void write(const Sequence& s, int position);
  /// All that the cache holds of a sequence's KV head, [position][d].
  const std::vector<double>& plain(int sequence, int kv_head, bool value) const;
  std::uint32_t block_of(const Sequence& s, int position) const;

  struct Batch {
    std::vector<pagedcore::TokenRange> ranges;
    std::vector<std::uint32_t> tables;
    std::vector<std::int32_t> positions;
    std::vector<std::pair<int, int>> keys;
  };
  Batch describe(std::span<const Rows> rows) const;

  WorldShape shape_;
  std::vector<Sequence> sequences_;
  std::vector<std::byte> cache_;  // 0xff where nothing was written: NaN in every type, and in scales
  mutable std::map<std::tuple<int, int, bool>, std::vector<double>> plain_;  // of what has been asked for
  std::byte* outside_ = nullptr;
  std::int64_t stride_ = 0;
};

/// Consecutive blocks from `first` on, enough for `length` tokens.
std::vector<std::uint32_t> blocks_from(int first, int length, int block_size);

}  // namespace cuda_test
