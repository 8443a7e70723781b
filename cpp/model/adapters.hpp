// The adapters of a model: what each adds to which product, and which rows of a step have which.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "pagedcore/adapter.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore {

/// The products of a layer that adapters add to: q, k and v in one, and of a gated MLP gate and up.
enum class AdaptedProduct : std::uint8_t { qkv, o, up, down };
inline constexpr std::size_t kAdaptedProducts = 4;

class Adapters {
 public:
  /// Room for as many as the options say, and for the sums of `max_rows` rows.
  Adapters(const ModelDescription& description, Backend& backend, const AdapterOptions& options,
           std::uint32_t max_rows);

  /// Packs an adapter, which fits the model (check_adapter), into a slot, in place of what was there.
  void load(std::int32_t slot, const AdapterWeights& weights);
  void drop(std::int32_t slot) noexcept;
  std::size_t bytes() const noexcept;

  /// Throws InvalidArgument unless there is a slot, or -1 for none, for each of `rows` rows, and something in it.
  void check(std::span<const std::int32_t> slots, std::int64_t rows) const;
  /// A step begins, whose row r has the adapter in slots[r]; -1, or no slots at all: none.
  void begin(std::span<const std::int32_t> slots);
  /// From here on the rows are these ones of the step.
  void choose(std::span<const std::int32_t> rows);
  /// Or again all of them.
  void choose_all();

  /// For the epilogue of this product of `in`, computed now; null where no row has anything for it. Valid until the
  /// next call.
  const LowRankSums* sums(std::int32_t layer, AdaptedProduct product, const Tensor& in);

 private:
  using Layer = std::array<std::unique_ptr<LowRankWeight>, kAdaptedProducts>;
  void sort(std::span<const std::int32_t> slots);

  const ModelDescription& d_;
  Backend& backend_;
  const std::int64_t most_ranks_;
  std::unique_ptr<Buffer> buffer_;
  std::vector<std::vector<Layer>> slots_;         // [adapters][layers]; an empty one is free
  std::vector<std::int32_t> of_rows_;             // [rows of the step]
  std::vector<std::int32_t> rows_, ends_, used_;  // LowRankRows, and the slot of each of its adapters
  std::vector<const LowRankWeight*> weights_;
  LowRankSums sums_;
};

}  // namespace pagedcore
