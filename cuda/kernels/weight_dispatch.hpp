// From a type of inputs and a format of weights, known when a program runs, to template arguments.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "kernels/matmul_layout.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore::cuda {

/// launch.operator()<T>(), with T the CUDA type of `type`; cudaErrorInvalidValue where it is neither f16 nor bf16.
template <class Launch>
cudaError_t dispatch_type(DType type, const Launch& launch) {
  if (type == DType::f16) return launch.template operator()<__half>();
  if (type == DType::bf16) return launch.template operator()<__nv_bfloat16>();
  return cudaErrorInvalidValue;
}

/// launch.operator()<T, kFormat>() likewise; cudaErrorInvalidValue also where `format` is no packed one.
template <class Launch>
cudaError_t dispatch_weights(DType type, WeightFormat format, const Launch& launch) {
  return dispatch_type(type, [&]<class T>() {
    switch (format) {
      case WeightFormat::native:
        return launch.template operator()<T, WeightFormat::native>();
      case WeightFormat::int8_row:
        return launch.template operator()<T, WeightFormat::int8_row>();
      case WeightFormat::int8_group:
        return launch.template operator()<T, WeightFormat::int8_group>();
      case WeightFormat::int4_group:
        return launch.template operator()<T, WeightFormat::int4_group>();
      case WeightFormat::plain:
        break;
    }
    return cudaErrorInvalidValue;
  });
}

}  // namespace pagedcore::cuda
