// AVX-512 with an instruction that rounds to bf16: see widen.hpp.
#include "cpu/matmul/native/lanes_avx512.hpp"
//
#include "cpu/matmul/native/widen.hpp"

namespace pagedcore::cpu {

constinit const WidenTable avx512bf16_widen_bf16 = widen_table<ToBf16>();

}  // namespace pagedcore::cpu
