#include "cpu/matmul/native/format.hpp"

#include "cpu/matmul/layout.hpp"

namespace pagedcore::cpu {
namespace {

struct Entry {
  NativeFormat format;
  WidenFunction WidenTable::*widen;
  IntegerProduct IntegerKernel::*product;
};
constexpr Entry kNativeFormats[]{
    {{DType::q4_0, 1, 0, 2, 2, 4}, &WidenTable::q4_0, &IntegerKernel::q4_0},
    {{DType::q4_1, 1, 0, 4, 2, 4}, &WidenTable::q4_1, &IntegerKernel::q4_1},
    {{DType::q5_0, 1, 0, 2, 2, 5}, &WidenTable::q5_0, &IntegerKernel::q5_0},
    {{DType::q5_1, 1, 0, 4, 2, 5}, &WidenTable::q5_1, &IntegerKernel::q5_1},
    {{DType::q8_0, 1, 0, 2, 2, 8}, &WidenTable::q8_0, &IntegerKernel::q8_0},
    {{DType::q2_k, 8, 4, 2, 1, 2}, &WidenTable::q2_k, &IntegerKernel::q2_k},
    {{DType::q3_k, 8, 2, 2, 1, 3}, &WidenTable::q3_k, &IntegerKernel::q3_k},
    {{DType::q4_k, 8, 4, 2, 1, 4}, &WidenTable::q4_k, &IntegerKernel::q4_k},
    {{DType::q5_k, 8, 4, 2, 1, 5}, &WidenTable::q5_k, &IntegerKernel::q5_k},
    {{DType::q6_k, 8, 2, 2, 1, 6}, &WidenTable::q6_k, &IntegerKernel::q6_k},
    {{DType::mxfp4, 1, 0, 1, 1, 4, false}, &WidenTable::mxfp4, nullptr},
    {{DType::int4_g32, 1, 6, 0, 2, 4}, &WidenTable::int4_g32, &IntegerKernel::int4_g32},
    {{DType::int4_g128, 4, 6, 0, 2, 4}, &WidenTable::int4_g128, &IntegerKernel::int4_g128},
    {{DType::int8_g128, 4, 6, 0, 2, 8}, &WidenTable::int8_g128, &IntegerKernel::int8_g128},
    {{DType::f8_g128, 4, 4, 0, 2, 8, false}, &WidenTable::f8_g128, nullptr},
};

const Entry* entry_of(DType dtype) noexcept {
  for (const Entry& entry : kNativeFormats)
    if (entry.format.dtype == dtype) return &entry;
  return nullptr;
}

const WidenTable& table_of(Isa isa, bool bf16) noexcept {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::avx2:
      return bf16 ? avx2_widen_bf16 : avx2_widen_f32;
    case Isa::avx512:
      return bf16 ? avx512_widen_bf16 : avx512_widen_f32;
    case Isa::avx512_bf16:
    case Isa::amx:
      return bf16 ? avx512bf16_widen_bf16 : avx512_widen_f32;
    case Isa::portable:
    case Isa::neon:
      break;
  }
#else
  static_cast<void>(isa);
#endif
  return bf16 ? portable_widen_bf16 : portable_widen_f32;
}

}  // namespace

const NativeFormat* native_format(DType dtype) noexcept {
  const Entry* entry = entry_of(dtype);
  return entry == nullptr ? nullptr : &entry->format;
}

WidenFunction widen_of(const NativeFormat& format, Isa isa, DType compute) {
  return table_of(isa, compute == DType::bf16).*entry_of(format.dtype)->widen;
}

const IntegerProduct& product_of(const IntegerKernel& kernel, const NativeFormat& format) noexcept {
  return kernel.*entry_of(format.dtype)->product;
}

}  // namespace pagedcore::cpu
