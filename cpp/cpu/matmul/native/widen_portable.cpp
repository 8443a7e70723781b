// Every CPU: see widen.hpp.
#include "cpu/matmul/native/lanes_portable.hpp"
//
#include "cpu/matmul/native/widen.hpp"

namespace pagedcore::cpu {

constinit const WidenTable portable_widen_f32 = widen_table<ToF32>();
constinit const WidenTable portable_widen_bf16 = widen_table<ToBf16>();

}  // namespace pagedcore::cpu
