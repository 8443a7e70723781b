// The activation functions of a decoder's feed-forward part, in f32.
#pragma once

#include <cfloat>
#include <cmath>

#include "kernels/device.cuh"
#include "pagedcore/backend.hpp"

namespace pagedcore::cuda {

/// x itself, of -infinity the lowest number: the functions below have their limit there, 0, and not -infinity times 0.
/// A NaN stays one.
__device__ inline float above_infinity(float x) { return x < -FLT_MAX ? -FLT_MAX : x; }

/// x / (1 + e^-x). Where e^-x is beyond 2^126, __fdividef gives 0: the limit.
__device__ inline float silu(float x) {
  x = above_infinity(x);
  return __fdividef(x, 1.0f + __expf(-x));
}

/// x Phi(x); erfcf, so that nothing cancels for negative x.
__device__ inline float gelu(float x) {
  x = above_infinity(x);
  return 0.5f * x * erfcf(-0.707106781f * x);
}

/// x (1 + tanh u) / 2 = x / (1 + e^(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3).
__device__ inline float gelu_tanh(float x) {
  x = above_infinity(x);
  const float twice_u = x * fmaf(x * x, 0.0713548163f, 1.59576912f);
  return __fdividef(x, 1.0f + __expf(-twice_u));
}

__device__ inline float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::silu:
      return silu(x);
    case Activation::gelu:
      return gelu(x);
    case Activation::gelu_tanh:
      return gelu_tanh(x);
    case Activation::relu:
      return fmaxf(x, 0.0f);
    case Activation::clamped_swiglu:
      break;  // the backend refuses it
  }
  return x;
}

}  // namespace pagedcore::cuda
