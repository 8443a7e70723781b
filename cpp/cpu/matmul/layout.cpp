#include "cpu/matmul/layout.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <limits>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {
namespace {

constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

const MatmulKernel& kernel_of(Isa isa, DType dtype) {
  if (dtype != DType::f32 && dtype != DType::bf16)
    throw InvalidArgument(str("the CPU backend cannot compute in ", info(dtype).name, "; use f32 or bf16"));
  const bool bf16 = dtype == DType::bf16;
#if defined(__x86_64__)
  switch (isa) {
    case Isa::avx2:
      return bf16 ? avx2_bf16_kernel : avx2_f32_kernel;
    case Isa::avx512:
      return bf16 ? avx512_bf16_kernel : avx512_f32_kernel;
    case Isa::avx512_bf16:
      return bf16 ? avx512bf16_kernel : avx512_f32_kernel;
    case Isa::amx:
      return bf16 ? amx_kernel : avx512_f32_kernel;
    case Isa::portable:
    case Isa::neon:
      break;
  }
#else
  static_cast<void>(isa);  // the portable kernel is NEON code on arm64
#endif
  return bf16 ? portable_bf16_kernel : portable_f32_kernel;
}

PackedLayout::PackedLayout(std::int64_t n, std::int64_t k, const WeightForm& form, const MatmulKernel& kernel,
                           DType dtype) {
  constexpr std::int64_t kLimit = std::numeric_limits<std::int64_t>::max() / 64;
  if (n < 1 || k < 1 || n > kLimit / k)
    throw InvalidArgument(str("cannot pack a matrix of [", n, ", ", k,
                              "]; both extents must be at least 1 and their "
                              "product below 2^57"));
  check_leaves(form.leaf_ends, k);
  const std::int64_t columns = form.kind == PackKind::gated ? kernel.lanes : 2 * kernel.lanes;  // of n, in a panel
  const auto add_leaf = [&](std::int64_t end) {
    const MatmulLeaf last = leaves.empty() ? MatmulLeaf{} : leaves.back();
    k_padded = last.padded_end + ceil_div(end - last.k_end, kernel.k_multiple) * kernel.k_multiple;
    leaves.push_back({end, k_padded});
  };
  for (const std::int64_t end : form.leaf_ends) add_leaf(end);
  if (leaves.empty()) add_leaf(k);
  panels = ceil_div(n, columns);
  panel_bytes = k_padded * 2 * kernel.lanes * (dtype == DType::bf16 ? 2 : 4);
}

PackedWeight::PackedWeight(std::int64_t n, std::int64_t k, const WeightForm& form, Isa isa, DType dtype)
    : n_(n),
      k_(k),
      kind_(form.kind),
      dtype_(dtype),
      kernel_(kernel_of(isa, dtype)),
      layout_(n, k, form, kernel_, dtype) {
  const bool large = bytes() >= kHugePage;
  void* memory = nullptr;
  if (posix_memalign(&memory, large ? kHugePage : kCacheLine, bytes()) != 0)
    throw OutOfMemory(str("no memory for a packed weight of [", n, ", ", k, "]: ", bytes(),
                          " bytes; free memory or use a smaller model"));
  memory_.reset(static_cast<std::byte*>(memory));
#if defined(MADV_HUGEPAGE)
  if (large) madvise(memory, bytes() / kHugePage * kHugePage, MADV_HUGEPAGE);  // a hint: it may fail
#endif
}

void PackedWeight::Free::operator()(std::byte* p) const noexcept { std::free(p); }

}  // namespace pagedcore::cpu
