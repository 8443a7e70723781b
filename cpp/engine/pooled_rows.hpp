// The rows of a text on their way to its embedding.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "pagedcore/embedding.hpp"

namespace pagedcore {

/// Takes the rows of a text, in order, and keeps what its embedding is made of. A sum runs in f64 and in the order of
/// the rows, so it depends neither on steps nor on batches; a row that comes again, of a request that is recomputed,
/// changes nothing.
class PooledRows {
 public:
  /// `pooling` is not auto. Throws std::bad_alloc.
  PooledRows(Pooling pooling, std::size_t num_rows, std::size_t width)
      : pooling_(pooling), num_rows_(num_rows), sum_(width) {}

  /// Whether the row is of use and has not come yet, once `coming` others of this step have.
  bool wants(std::size_t position, std::size_t coming = 0) const noexcept;
  /// `row` has `width` elements.
  void add(std::size_t position, std::span<const float> row) noexcept;
  bool is_complete() const noexcept { return taken_ == num_wanted(); }
  /// What they make together, once they are complete. Throws std::bad_alloc.
  std::vector<float> pooled() const;

 private:
  std::size_t num_wanted() const noexcept { return pooling_ == Pooling::mean ? num_rows_ : 1; }

  Pooling pooling_;
  std::size_t num_rows_;
  std::size_t taken_ = 0;
  std::vector<double> sum_;
};

/// Cuts an embedding to its first `dimensions` and scales it to length 1, where that is asked for.
void finish_embedding(std::vector<float>& embedding, const EmbeddingParams& params);

}  // namespace pagedcore
