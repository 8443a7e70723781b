// Weights as a backend keeps them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/fields.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore {

/// How the matrices given to Backend::pack become one weight.
enum class PackKind : std::uint8_t {
  stacked,  // rows one after another: q, k and v as one [q + k + v, k] matrix
  gated,    // exactly two matrices of equal shape (gate, up), combined by Epilogue::gated
};

/// Most leaves of a weight.
inline constexpr std::size_t kMostLeaves = 4096;

/// How a weight is kept, and in what order the products of an output are summed. Without leaves the sum runs over k in
/// the backend's one order. With them, each leaf, a range of consecutive k, is summed by itself, in that order, and the
/// sums meet in a binary tree: node (0, i) is leaf i, node (j, i) adds nodes (j - 1, 2 i) and (j - 1, 2 i + 1), or is
/// the first of them where there is no second. What an Epilogue adds, bias, then residual, comes after the root. So
/// ranges of leaves can be summed apart, on different devices too, and add up to the same bits (backend/sum_tree.hpp).
struct WeightForm {
  PackKind kind = PackKind::stacked;
  std::vector<std::int64_t> leaf_ends;  // ascending, none of them 0, the last is k; at most kMostLeaves; none: one leaf
  bool f32 = false;                     // kept in f32, and multiplied with f32 inputs, whatever the compute type is
  bool of_expert = false;               // of a mixture: Backend::mixture reads it, whose products are not in integers

  WeightForm(PackKind pack_kind = PackKind::stacked, std::vector<std::int64_t> ends = {})
      : kind(pack_kind), leaf_ends(std::move(ends)) {}
};

/// Covers leaves [index 2^level, (index + 1) 2^level) of a WeightForm, as far as there are any.
struct TreeNode {
  int level = 0;
  std::int64_t index = 0;
  bool operator==(const TreeNode&) const = default;
};

/// The values of subtrees over all leaves of a sum, f32 [rows, columns] each.
struct PartialSums {
  std::span<const TreeNode> nodes;
  std::span<const Tensor> values;  // [nodes]
  std::int64_t num_leaves = 0;
};

/// What a packed weight takes.
struct PackedSize {
  std::size_t bytes = 0;
  std::size_t native = 0;   // of them: in a block format; the others in the compute type
  std::size_t integer = 0;  // of those: their products are in integers
};

/// A weight matrix [n, k] in the layout of its backend. Immutable once packed.
class PAGEDCORE_API Weight {
 public:
  virtual ~Weight();
  virtual std::int64_t n() const noexcept = 0;  // output features; of a gated pair, those of one half
  virtual std::int64_t k() const noexcept = 0;  // input features
  virtual std::size_t bytes() const noexcept = 0;
  virtual PackedSize size() const noexcept;  // the default: bytes(), all in the compute type
};

/// What is kept of weights. The last two: of those in no block format, codes of 8 or 4 bits.
enum class WeightStorage : std::uint8_t { automatic, native, dense, int8, int4 };
template <>
struct Words<WeightStorage> {
  static constexpr Word<WeightStorage> list[] = {{WeightStorage::automatic, "auto"},
                                                 {WeightStorage::native, "native"},
                                                 {WeightStorage::dense, "dense"},
                                                 {WeightStorage::int8, "int8"},
                                                 {WeightStorage::int4, "int4"}};
};

}  // namespace pagedcore
