// What the ranks of a model send one another in a step. Everything is bytes to the communicator; sums are made here, by
// Backend::combine. What all ranks need of the rows of a step is worked out by rows: each rank finishes some of them.
//
// Memory is the backend's, which the host must be able to read: that of the CPU.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "model/shard.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore {

/// Bytes of the memory that exchanges need.
struct ExchangeSizes {
  ExchangeSizes(const ModelDescription& description, const Shard& shard, std::int64_t rows, std::int64_t logit_rows);
  std::size_t sent = 0, received = 0;
};

class Exchange {
 public:
  /// Memory as ExchangeSizes says. All must outlive it.
  Exchange(const ModelDescription& description, const Shard& shard, Backend& backend, float* sent, float* received);
  void speak_through(comm::Communicator& communicator) noexcept { comm_ = &communicator; }

  /// Where the value of the `index`-th of a rank's own `count` subtrees goes, f32 [rows, hidden_size].
  Tensor partial(std::int64_t rows, std::size_t index, std::size_t count) const noexcept;
  /// From partial() of all ranks: out, as Backend::combine() makes it of `cuts`, whole at every rank.
  void reduce(const Tensor& out, const Cuts& cuts, const Epilogue& epilogue);
  /// Rows of `out` that each rank has, by its tokens of the vocabulary, to all.
  void share_embedding(const Tensor& out, std::span<const TokenId> tokens);
  /// What all ranks have of the rows of a matrix, each the columns `ranges[rank]` of it, `own` this one's: whole, in
  /// memory that the next call overwrites.
  Tensor gather(const Tensor& own, std::span<const Interval> ranges, std::int64_t columns);
  /// The same at rank 0 alone, to whose `whole` the columns of the others come: its own are there already.
  void gather_logits(const Tensor& whole, const Tensor& own);

  std::vector<Interval> query_columns() const;  // of q, by rank
  std::vector<Interval> key_columns() const;    // of k: those that a rank is the first to have
  const Shard& shard() const noexcept { return shards_[static_cast<std::size_t>(rank_)]; }

 private:
  Tensor matrix(float* at, std::int64_t rows, std::int64_t cols) const noexcept;
  Interval rows_of(std::int64_t rows, std::size_t rank) const noexcept;
  std::size_t ranks() const noexcept { return shards_.size(); }

  Backend& backend_;
  const std::int64_t hidden_, head_;
  const int rank_;
  std::vector<Shard> shards_;  // by rank
  float* const sent_;
  float* const received_;
  comm::Communicator* comm_ = nullptr;
  // Kept for their memory.
  std::vector<std::span<const std::byte>> sends_;
  std::vector<std::span<std::byte>> receives_;
  std::vector<Tensor> values_;
  std::vector<std::int32_t> places_, own_;
};

}  // namespace pagedcore
