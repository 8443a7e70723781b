// Functions of cuda_fp16.h and cuda_bf16.h that exist for nvcc only: computed in f32 and rounded once.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>

#include "emulator/intrinsics.hpp"

namespace cuda_emu {
// f32 holds the product of two such numbers exactly and double their sum with a third; one rounding to f32 and one to
// 16 bits differ from a single one only where a tie of the second follows from the first, which odd rounding rules out.
inline float fma_once(float a, float b, float c) {
  const double exact = static_cast<double>(a) * b, sum = exact + c;
  const double lost = std::fabs(exact) > std::fabs(static_cast<double>(c)) ? c - (sum - exact) : exact - (sum - c);
  auto rounded = static_cast<float>(sum);
  const double error = (sum - rounded) + lost;
  if (error != 0.0 && std::isfinite(rounded) && (__float_as_uint(rounded) & 1u) == 0) {
    rounded = std::nextafter(rounded, error > 0 ? HUGE_VALF : -HUGE_VALF);
  }
  return rounded;
}
}  // namespace cuda_emu

inline __half __hfma(__half a, __half b, __half c) {
  return __float2half_rn(cuda_emu::fma_once(__half2float(a), __half2float(b), __half2float(c)));
}
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  return __float2bfloat16_rn(cuda_emu::fma_once(__bfloat162float(a), __bfloat162float(b), __bfloat162float(c)));
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}

#define CUDA_EMU_UNARY(name, expression)                                      \
  inline __half h##name(__half h) {                                           \
    const float x = __half2float(h);                                          \
    return __float2half_rn(expression);                                       \
  }                                                                           \
  inline __nv_bfloat16 h##name(__nv_bfloat16 h) {                             \
    const float x = __bfloat162float(h);                                      \
    return __float2bfloat16_rn(expression);                                   \
  }                                                                           \
  inline __half2 h2##name(__half2 h) { return {h##name(h.x), h##name(h.y)}; } \
  inline __nv_bfloat162 h2##name(__nv_bfloat162 h) { return {h##name(h.x), h##name(h.y)}; }
CUDA_EMU_UNARY(exp, std::exp(x))
CUDA_EMU_UNARY(exp2, std::exp2(x))
CUDA_EMU_UNARY(log, std::log(x))
CUDA_EMU_UNARY(log2, std::log2(x))
CUDA_EMU_UNARY(sqrt, std::sqrt(x))
CUDA_EMU_UNARY(rsqrt, rsqrtf(x))
CUDA_EMU_UNARY(rcp, 1.0f / x)
CUDA_EMU_UNARY(floor, std::floor(x))
CUDA_EMU_UNARY(ceil, std::ceil(x))
CUDA_EMU_UNARY(rint, std::nearbyint(x))
#undef CUDA_EMU_UNARY
