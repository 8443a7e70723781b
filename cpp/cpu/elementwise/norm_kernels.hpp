// The normalisation of one row, once per instruction set. Included by sources that are compiled for one instruction set
// each, so it may hold declarations only: no std::, nothing inline.
#pragma once

#include <stdint.h>

namespace pagedcore::cpu {

/// One row: out[i] = normalised(in)[i] * (weight[i] + weight_offset) + bias[i].
struct NormRow {
  const float* in;
  void* out;  // float or bfloat16; may be `in` itself when float
  const float* weight;
  const float* bias;  // or null
  int64_t n;
  float eps;
  float weight_offset;
};

using NormKernel = void (*)(const NormRow&);

struct NormKernels {
  NormKernel rms_f32;     // x / sqrt(mean(x^2) + eps)
  NormKernel rms_bf16;    //
  NormKernel layer_f32;   // (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)
  NormKernel layer_bf16;  //
};

extern const NormKernels norm_kernels_portable;
extern const NormKernels norm_kernels_avx2;    // x86-64 only
extern const NormKernels norm_kernels_avx512;  // x86-64 only

}  // namespace pagedcore::cpu
