// From a type of inputs and a format of weights, known when a program runs, to template arguments.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "kernels/matmul_layout.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore::cuda {

/// launch.operator()<T, kFormat>(), with T the CUDA type of `type`; cudaErrorInvalidValue where `type` is neither f16
/// nor bf16 or `format` is none.
template <class Launch>
cudaError_t dispatch_weights(DType type, WeightFormat format, const Launch& launch) {
  const auto with_type = [&]<class T>() {
    switch (format) {
      case WeightFormat::native:
        return launch.template operator()<T, WeightFormat::native>();
      case WeightFormat::int8_row:
        return launch.template operator()<T, WeightFormat::int8_row>();
      case WeightFormat::int8_group:
        return launch.template operator()<T, WeightFormat::int8_group>();
      case WeightFormat::int4_group:
        return launch.template operator()<T, WeightFormat::int4_group>();
    }
    return cudaErrorInvalidValue;
  };
  if (type == DType::f16) return with_type.template operator()<__half>();
  if (type == DType::bf16) return with_type.template operator()<__nv_bfloat16>();
  return cudaErrorInvalidValue;
}

}  // namespace pagedcore::cuda
