#include "cpu/matmul/layout.hpp"

#include <algorithm>
#include <limits>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// The format that all columns of a panel are in; null where there is none, or more than one.
const NativeFormat* format_of(std::span<const HostTensor> parts, const PanelForms& forms, PackKind kind,
                              std::int64_t columns, std::int64_t panel) {
  const NativeFormat* format = nullptr;
  std::int64_t first = 0;  // row of the packed matrix at which a part begins
  for (const HostTensor& part : parts) {
    const std::int64_t end = first + part.rows();
    if (kind == PackKind::gated || (first < (panel + 1) * columns && panel * columns < end)) {
      const NativeFormat* of_part = kept_format(part.dtype, part.cols(), forms);
      if (of_part == nullptr || (format != nullptr && format != of_part)) return nullptr;
      format = of_part;
    }
    first = end;
  }
  return format;
}

}  // namespace

const NativeFormat* kept_format(DType dtype, std::int64_t k, const PanelForms& forms) noexcept {
  const NativeFormat* format = native_format(dtype);
  return format == nullptr && k % kGroup == 0 ? native_format(forms.rounded) : format;
}

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

const IntegerKernel& integer_kernel_of(Isa isa) noexcept {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::avx2:
      return has_vnni(isa) ? avxvnni_integer_kernel : avx2_integer_kernel;
    case Isa::avx512:
    case Isa::avx512_bf16:
    case Isa::amx:
      return has_vnni(isa) ? avx512vnni_integer_kernel : avx512_integer_kernel;
    case Isa::portable:
    case Isa::neon:
      break;
  }
#else
  static_cast<void>(isa);
#endif
  return portable_integer_kernel;
}

PackedLayout::PackedLayout(std::int64_t n, std::int64_t k, const WeightForm& form, const MatmulKernel& kernel,
                           DType dtype, std::span<const HostTensor> parts, const PanelForms& forms) {
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
    const std::int64_t groups = ceil_div(end, kGroup) - last.k_end / kGroup;
    input_groups.push_back({end, (input_groups.empty() ? 0 : input_groups.back().padded_end) + kGroup * groups});
    leaves.push_back({end, k_padded});
  };
  for (const std::int64_t end : form.leaf_ends) add_leaf(end);
  if (leaves.empty()) add_leaf(k);
  panels = ceil_div(n, columns);
  panel_bytes = k_padded * 2 * kernel.lanes * (dtype == DType::bf16 ? 2 : 4);
  const bool integer = forms.integer != nullptr, native = forms.native && k_padded == k;
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    const NativeFormat* format = integer || native ? format_of(parts, forms, form.kind, columns, panel) : nullptr;
    if (format != nullptr && !format->integer && !native) format = nullptr;
    if (!runs.empty() && runs.back().format == format) {
      runs.back().end = panel + 1;
    } else {
      const std::int64_t kept = format == nullptr ? 0 : k / (kGroup * format->groups) * format->block_bytes();
      runs.push_back({panel, panel + 1, format, integer && format != nullptr && format->integer,
                      format == nullptr ? panel_bytes : kept * 2 * kernel.lanes,
                      runs.empty() ? 0 : runs.back().offset + runs.back().bytes()});
    }
  }
}

bool PackedLayout::has_integer() const noexcept {
  return std::ranges::any_of(runs, [](const PanelRun& run) { return run.integer; });
}

PackedSize PackedLayout::size() const noexcept {
  PackedSize size;
  for (const PanelRun& run : runs) {
    size.bytes += static_cast<std::size_t>(run.bytes());
    if (run.format != nullptr) size.native += static_cast<std::size_t>(run.bytes());
    if (run.integer) size.integer += static_cast<std::size_t>(run.bytes());
  }
  return size;
}

const PanelRun& PackedLayout::run_of(std::int64_t panel) const noexcept {
  const PanelRun* run = runs.data();
  while (panel >= run->end) ++run;
  return *run;
}

PackedWeight::PackedWeight(std::int64_t n, std::int64_t k, const WeightForm& form, Isa isa, DType dtype,
                           std::span<const HostTensor> parts, const PanelForms& forms)
    : n_(n),
      k_(k),
      kind_(form.kind),
      dtype_(dtype),
      isa_(isa),
      kernel_(kernel_of(isa, dtype)),
      layout_(n, k, form, kernel_, dtype, parts, forms),
      integer_(layout_.has_integer() ? forms.integer : nullptr) {
  memory_ = large_memory(bytes());
  if (memory_ == nullptr)
    throw OutOfMemory(str("no memory for a packed weight of [", n, ", ", k, "]: ", bytes(),
                          " bytes; free memory or use a smaller model"));
}

}  // namespace pagedcore::cpu
