// AVX-512: see product.hpp.
#include "cpu/matmul/integer/quads_avx512.hpp"
//
#include "cpu/matmul/integer/product.hpp"

namespace pagedcore::cpu {

constinit const IntegerKernel avx512_integer_kernel = integer_kernel("avx512");

}  // namespace pagedcore::cpu
