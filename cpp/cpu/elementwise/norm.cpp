#include "cpu/elementwise/elementwise.hpp"
#include "cpu/elementwise/rows.hpp"

namespace pagedcore::cpu {
namespace {

NormKernel kernel_for(const NormKernels& kernels, NormKind kind, DType out) {
  if (kind == NormKind::rms) return out == DType::f32 ? kernels.rms_f32 : kernels.rms_bf16;
  return out == DType::f32 ? kernels.layer_f32 : kernels.layer_bf16;
}

}  // namespace

const NormKernels& norm_kernels(Isa isa) noexcept {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::avx2:
      return norm_kernels_avx2;
    case Isa::avx512:
    case Isa::avx512_bf16:
    case Isa::amx:
      return norm_kernels_avx512;
    case Isa::portable:
    case Isa::neon:
      break;
  }
#else
  (void)isa;  // the baseline of aarch64 has NEON, and the portable arrays become its vectors
#endif
  return norm_kernels_portable;
}

void norm(ThreadPool& pool, const NormKernels& kernels, const Tensor& out, const Tensor& in, const Tensor& weight,
          const Tensor* bias, const NormParams& params) {
  check_norm(out, in, weight, bias, DType::bf16);
  const NormKernel kernel = kernel_for(kernels, params.kind, out.dtype);
  const std::int64_t out_stride = out.stride * info(out.dtype).block_bytes;
  for_each_row(pool, in.rows, in.cols, [&](std::int64_t row) {
    kernel({row_of<float>(in, row), static_cast<std::byte*>(out.data) + row * out_stride, row_of<float>(weight, 0),
            bias != nullptr ? row_of<float>(*bias, 0) : nullptr, in.cols, params.eps, params.weight_offset});
  });
}

void head_norm(ThreadPool& pool, const NormKernels& kernels, const Tensor& x, std::int32_t head_dim,
               const Tensor& weight, const Tensor* bias, const NormParams& params) {
  const bool shared = check_head_norm(x, head_dim, weight, bias);
  const NormKernel kernel = kernel_for(kernels, params.kind, DType::f32);
  for_each_row(pool, x.rows, x.cols, [&](std::int64_t row) {
    for (std::int64_t column = 0; column < x.cols; column += head_dim) {
      float* head = row_of<float>(x, row) + column;
      const std::int64_t first = shared ? 0 : column;
      kernel({head, head, row_of<float>(weight, 0) + first, bias != nullptr ? row_of<float>(*bias, 0) + first : nullptr,
              head_dim, params.eps, params.weight_offset});
    }
  });
}

}  // namespace pagedcore::cpu
