// avx512: see widen.hpp.
#include "cpu/matmul/native/lanes_avx512.hpp"
//
#include "cpu/matmul/native/widen.hpp"

namespace pagedcore::cpu {

constinit const WidenTable avx512_widen_f32 = widen_table<ToF32>();
constinit const WidenTable avx512_widen_bf16 = widen_table<ToBf16>();

}  // namespace pagedcore::cpu
