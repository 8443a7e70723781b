// AVX-512 with VNNI: see product.hpp.
#include "cpu/matmul/integer/quads_avx512.hpp"
//
#include "cpu/matmul/integer/product.hpp"

namespace pagedcore::cpu {

constinit const IntegerKernel avx512vnni_integer_kernel = integer_kernel("avx512_vnni");

}  // namespace pagedcore::cpu
