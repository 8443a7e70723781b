// AVX-VNNI: see product.hpp.
#include "cpu/matmul/integer/quads_avx2.hpp"
//
#include "cpu/matmul/integer/product.hpp"

namespace pagedcore::cpu {

constinit const IntegerKernel avxvnni_integer_kernel = integer_kernel("avx_vnni");

}  // namespace pagedcore::cpu
