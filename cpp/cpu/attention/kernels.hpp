// The kernels of an instruction set.
#pragma once

#include "cpu/attention/kernel.hpp"
#include "cpu/isa.hpp"

namespace pagedcore::cpu::attention_detail {

const AttentionKernels& kernels_of(Isa isa);

}  // namespace pagedcore::cpu::attention_detail
