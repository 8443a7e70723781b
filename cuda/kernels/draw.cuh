// One draw by inverting a cumulative distribution in token order: first over blocks of 1024 weights, then within one,
// with the sums and the order of additions of cpp/sampling/sampler.cpp.
#pragma once

#include "kernels/row_selection.cuh"
#include "kernels/sampling.hpp"

namespace pagedcore::cuda {

struct DrawScratch {
  float weights[kSumBlock];
  double sums[kMaxVocab / kSumBlock];
  double before, target;  // the sum ahead of `block`, and what the draw asks for
  int block;
};

/// By a whole block of threads: sums[b] = sum_of(b), a warp at a time; visible to all.
template <class SumOf>
__device__ inline void sum_blocks(DrawScratch& s, int blocks, const SumOf& sum_of) {
  for (int b = warp_index(); b < blocks; b += kRowWarps) {
    const double sum = sum_of(b);
    if (lane_index() == 0) s.sums[b] = sum;
  }
  __syncthreads();
}

__device__ inline double total_of(const DrawScratch& s, int blocks) {
  double total = 0.0;
  for (int b = 0; b < blocks; ++b) total += s.sums[b];
  return total;
}

struct Place {
  int index = 0;
  double margin = 0.0;  // by which the running sum before or after it misses the target
};

/// The first index at which the running sum of the weights, begun at `sum`, exceeds `target`; should rounding leave
/// none, the last of positive weight.
__device__ inline Place invert(const float* weights, int count, double sum, double target) {
  Place last;
  for (int i = 0; i < count; ++i) {
    if (!(weights[i] > 0.0f)) continue;
    const double before = sum;
    sum += static_cast<double>(weights[i]);
    last = {i, fmin(target - before, sum - target)};
    if (sum > target) break;
  }
  return last;
}

/// By thread 0: which block the draw `u` falls into.
__device__ inline void find_block(DrawScratch& s, int blocks, double u) {
  s.target = u * total_of(s, blocks);
  s.before = 0.0;
  s.block = 0;
  double sum = 0.0;
  for (int b = 0; b < blocks; ++b) {
    if (!(s.sums[b] > 0.0)) continue;
    s.block = b;
    s.before = sum;
    sum += s.sums[b];
    if (sum > s.target) break;
  }
}

/// Looks up within the block that find_block found; the place is thread 0's only.
template <class Weight>
__device__ inline Place find_in_block(DrawScratch& s, int count, const Weight& weight) {
  __syncthreads();
  const int first = s.block * kSumBlock, size = min(kSumBlock, count - first);
  for (int i = threadIdx.x; i < size; i += kRowThreadsPerBlock) s.weights[i] = weight(first + i);
  __syncthreads();
  if (threadIdx.x != 0) return {};
  const Place place = invert(s.weights, size, s.before, s.target);
  return {first + place.index, place.margin};
}

/// Draws from all tokens of a row whose block sums are there. The token is thread 0's only.
__device__ inline TokenId draw_from_row(DrawScratch& s, const Row& row, double u) {
  if (threadIdx.x == 0) find_block(s, row.blocks(), u);
  return find_in_block(s, row.size, [&](int i) { return row.weight(row.logits[i]); }).index;
}

/// Draws from a list of tokens. Likewise, and so is whether another order of additions could give another token.
__device__ inline TokenId draw_from_list(DrawScratch& s, const RowSelector& list, double u, bool& undecided) {
  const auto weight = [&](int i) { return list.weight(i); };
  const int size = list.size();
  if (size > kSumBlock) {
    const int blocks = (size + kSumBlock - 1) / kSumBlock;
    sum_blocks(s, blocks, [&](int b) {
      double sum = 0.0;
      for (int i = b * kSumBlock + lane_index(); i < min(size, (b + 1) * kSumBlock); i += 32)
        sum += static_cast<double>(weight(i));
      return warp_sum(sum);
    });
    if (threadIdx.x == 0) find_block(s, blocks, u);
    const Place found = find_in_block(s, size, weight);
    if (threadIdx.x != 0) return 0;
    undecided = undecided || found.margin < total_of(s, blocks) * rounding_of(size);
    return list.token(found.index);
  }
  for (int i = threadIdx.x; i < size; i += kRowThreadsPerBlock) s.weights[i] = weight(i);
  __syncthreads();
  if (threadIdx.x != 0) return 0;
  double total = 0.0;
  for (int i = 0; i < size; ++i) total += static_cast<double>(s.weights[i]);
  return list.token(invert(s.weights, size, 0.0, u * total).index);
}

}  // namespace pagedcore::cuda
