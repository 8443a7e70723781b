// How the sums of a tile's leaves meet (WeightForm). Include after simd_*.hpp, in per-ISA sources only.
#pragma once

#include <cstdint>

namespace pagedcore::cpu {
namespace {

template <int Rows>
constexpr int kTileFloats = Rows * 2 * Simd::lanes;  // sums [Rows][2 * lanes]

/// Adds the sums of leaf `leaf` to those that wait, and leaves the result among them, at `stack`, when it was the last.
/// Leaves come in order, so they combine like the carries of a binary counter: `stack` holds, for every bit that is set
/// in the number of leaves so far, the sum of a complete subtree of so many leaves, the smallest first. The last leaf
/// takes in all of them: a tree that is cut at its end.
template <int Rows>
inline void take_leaf(Simd::F (&sum)[Rows][2], std::int64_t leaf, bool last, float* stack) {
  float* at = stack;
  for (std::int64_t waiting = leaf; waiting != 0 && (last || waiting % 2 != 0); waiting /= 2, at += kTileFloats<Rows>) {
    if (waiting % 2 == 0) continue;
    for (int r = 0; r < Rows; ++r)
      for (int v = 0; v < 2; ++v) sum[r][v] = Simd::add(Simd::load(at + (2 * r + v) * Simd::lanes), sum[r][v]);
  }
  if (last) at = stack;
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < 2; ++v) Simd::store(at + (2 * r + v) * Simd::lanes, sum[r][v]);
}

}  // namespace
}  // namespace pagedcore::cpu
