// AVX2: see product.hpp.
#include "cpu/matmul/integer/quads_avx2.hpp"
//
#include "cpu/matmul/integer/product.hpp"

namespace pagedcore::cpu {

constinit const IntegerKernel avx2_integer_kernel = integer_kernel("avx2");

}  // namespace pagedcore::cpu
