// The softmax of a query row over some of its context, and the merge of two of them.
//
// A state (m, l, acc) stands for probabilities 2^(score - m): l is their sum and acc the sum of probability times V.
// Products and sums are spelled with the _rn intrinsics wherever the compiler could contract them: it may choose
// differently in different kernels, and a row's bits must not depend on which kernel computed it.
#pragma once

#include "kernels/element.cuh"
#include "kernels/ptx.cuh"

namespace pagedcore::cuda {

inline constexpr float kLog2e = 1.4426950408889634f;

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

/// What multiplies acc, where one more token, without a value, has the score `sink`, in base 2; minus infinity: none.
/// A row without context is zero.
__device__ inline float normalizer(float m, float l, float sink) {
  float context = 1.0f, total = l;
  if (sink != -kInfinity) {
    const float top = fmaxf(m, sink);
    context = exp2_approx(__fadd_rn(m, -top));
    total = __fmaf_rn(l, context, exp2_approx(__fadd_rn(sink, -top)));
  }
  return total == 0.0f ? 0.0f : __fmul_rn(context, __frcp_rn(total));
}

/// The score of a head's sink, in base 2.
__device__ inline float sink_of(const float* sinks, int head) {
  return sinks == nullptr ? -kInfinity : __fmul_rn(sinks[head], kLog2e);
}

}  // namespace pagedcore::cuda
