// The functions that widen native panels, by instruction set. Plain data: the sources of instruction sets include it.
#pragma once

#include <cstdint>

namespace pagedcore::cpu {

/// Widens `groups` groups of a native panel (format.hpp), from group `first` on, to what a dense panel of the kernel's
/// compute type has there: exactly the values of to_f32(), rounded to nearest where that is bf16. A NaN stays one.
using WidenFunction = void (*)(const unsigned char* panel, std::int64_t first, std::int64_t groups, void* to);

/// In the order of kNativeFormats of format.cpp.
struct WidenTable {
  WidenFunction q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, mxfp4, int4_g32, int4_g128, int8_g128,
      f8_g128;
};

extern const WidenTable portable_widen_f32, portable_widen_bf16;
#if defined(__x86_64__)
extern const WidenTable avx2_widen_f32, avx2_widen_bf16;
extern const WidenTable avx512_widen_f32, avx512_widen_bf16;
extern const WidenTable avx512bf16_widen_bf16;
#endif

}  // namespace pagedcore::cpu
