// bf16 dot products: a step multiplies two consecutive k of sixteen columns and adds both to the sum.
#include "cpu/matmul/simd_avx512.hpp"
//
#include "cpu/matmul/epilogue.hpp"
#include "cpu/matmul/panel_kernel.hpp"

namespace pagedcore::cpu {
namespace {

struct StepDot {
  using Input = std::uint16_t;
  static constexpr int k = 2;
  static constexpr int subs = 1;
  static __m512bh weights(const unsigned char* w, int) { return (__m512bh)_mm512_loadu_si512(w); }
  static __m512bh input(const Input* in, int) {
    int pair;
    std::memcpy(&pair, in, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
  }
  static Simd::F mac(__m512bh in, __m512bh w, Simd::F sum) { return _mm512_dpbf16_ps(sum, in, w); }
  static std::int64_t scratch_bytes(const MatmulArgs& a) {
    return a.k == a.k_padded ? 0 : rows_of_scratch(a, sizeof(Input));
  }
  /// In place where every leaf is even; else copied, so that a leaf's last pair ends in a zero.
  static const Input* rows(const MatmulArgs& a, std::int64_t row, int count, void* scratch, std::int64_t& stride) {
    stride = a.in_stride;
    const Input* from = static_cast<const Input*>(a.in) + row * stride;
    if (a.k == a.k_padded) return from;
    Input* to = static_cast<Input*>(scratch);
    for (int r = 0; r < count; ++r, from += stride, to += a.k_padded) {
      std::int64_t k = 0, at = 0;
      for (std::int64_t leaf = 0; leaf < a.num_leaves; ++leaf) {
        for (; k < a.leaves[leaf].k_end; ++k, ++at) to[at] = from[k];
        for (; at < a.leaves[leaf].padded_end; ++at) to[at] = 0;
      }
    }
    stride = a.k_padded;
    return static_cast<const Input*>(scratch);
  }
};

}  // namespace

constinit const MatmulKernel avx512bf16_kernel = panel_kernel<StepDot>();

}  // namespace pagedcore::cpu
