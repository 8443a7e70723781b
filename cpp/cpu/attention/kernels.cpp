#include "cpu/attention/kernels.hpp"

namespace pagedcore::cpu::attention_detail {

const AttentionKernels& kernels_of(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::avx2:
      return kAvx2Kernels;
    case Isa::avx512:
      return kAvx512Kernels;
    case Isa::avx512_bf16:
      return kAvx512Bf16Kernels;
    case Isa::amx:
      return kAmxKernels;
    default:
      break;
  }
#endif
  (void)isa;
  return kPortableKernels;
}

}  // namespace pagedcore::cpu::attention_detail
