// The softmax of a query row over some of its context, and the merge of two of them.
//
// A state (m, l, acc) stands for probabilities 2^(score - m): l is their sum and acc the sum of probability times V.
// Products and sums are spelled with the _rn intrinsics wherever the compiler could contract them: it may choose
// differently in different kernels, and a row's bits must not depend on which kernel computed it.
#pragma once

#include "kernels/element.cuh"
#include "kernels/ptx.cuh"

namespace pagedcore::cuda {

struct StateMax {
  float m = -kInfinity;

  /// What is subtracted from scores: never infinite, so that a context without a visible token gives zeros.
  __device__ float origin() const { return m == -kInfinity ? 0.0f : m; }
};

/// How much each of two states counts in the one that covers both.
struct MergeWeights {
  float m, first, second;
};
__device__ inline MergeWeights merge_weights(float first_m, float second_m) {
  const StateMax both{fmaxf(first_m, second_m)};
  return {both.m, exp2_approx(__fadd_rn(first_m, -both.origin())), exp2_approx(__fadd_rn(second_m, -both.origin()))};
}

/// An element of acc, or l, of the state that covers both. A context that the row does not see, (-inf, 0, 0), leaves
/// the other's bits as they are.
__device__ inline float merge(const MergeWeights& w, float first, float second) {
  return __fmaf_rn(second, w.second, __fmul_rn(first, w.first));
}

/// What l's reciprocal multiplies acc by; a row without context is zero.
__device__ inline float normalizer(float l) { return l == 0.0f ? 0.0f : __frcp_rn(l); }

}  // namespace pagedcore::cuda
