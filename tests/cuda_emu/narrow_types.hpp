// f16 and bf16 on the host, and the tolerances that go with them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <cstdint>
#include <functional>
#include <limits>

#include "pagedcore/tensor.hpp"

namespace pagedcore::cuda {

/// A kernels/matmul_pack.hpp Parallel.
inline void one_after_the_other(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  for (std::int64_t i = 0; i < count; ++i) body(i);
}

inline std::uint16_t narrow(DType type, float x) {
  return type == DType::f16 ? std::bit_cast<std::uint16_t>(__float2half_rn(x))
                            : std::bit_cast<std::uint16_t>(__float2bfloat16_rn(x));
}
inline float widen(DType type, std::uint16_t bits) {
  return type == DType::f16 ? __half2float(std::bit_cast<__half>(bits))
                            : __bfloat162float(std::bit_cast<__nv_bfloat16>(bits));
}
inline float rounded(DType type, float x) { return widen(type, narrow(type, x)); }
inline std::uint16_t nan_of(DType type) { return narrow(type, std::numeric_limits<float>::quiet_NaN()); }

/// Absolute, for values of unit variance: one rounding to the type, with room for a tensor core that truncates.
inline double tolerance(DType type) { return type == DType::f16 ? 2e-3 : 2e-2; }

}  // namespace pagedcore::cuda
