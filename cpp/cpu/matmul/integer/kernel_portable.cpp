// Every CPU: see product.hpp.
#include "cpu/matmul/integer/quads_portable.hpp"
//
#include "cpu/matmul/integer/product.hpp"

namespace pagedcore::cpu {

constinit const IntegerKernel portable_integer_kernel = integer_kernel("portable");

}  // namespace pagedcore::cpu
