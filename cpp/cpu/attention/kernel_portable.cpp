// Baseline of the architecture (SSE2 on x86-64, NEON on arm64), by the compiler's generic vectors.
#include "cpu/attention/kernel_impl.hpp"

namespace pagedcore::cpu::attention_detail {
namespace {

struct Portable {
  typedef float Quad __attribute__((vector_size(16)));
  typedef int32_t Ints __attribute__((vector_size(16)));
  static constexpr int kQuads = 4;
  struct F {
    Quad x[kQuads];
  };

  template <class Op>
  static inline F map(const Op& op) {
    F r;
#pragma GCC unroll 4
    for (int i = 0; i < kQuads; ++i) r.x[i] = op(i);
    return r;
  }
  static inline Quad splat(float f) { return Quad{f, f, f, f}; }
  static inline Quad choose(Ints mask, Quad a, Quad b) { return (Quad)(((Ints)a & mask) | ((Ints)b & ~mask)); }

  static inline F zero() { return set1(0.0f); }
  static inline F set1(float f) {
    return map([&](int) { return splat(f); });
  }
  static inline F load(const float* p) {
    F r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
  }
  static inline void store(float* p, F a) { __builtin_memcpy(p, &a, sizeof a); }
  static inline F add(F a, F b) {
    return map([&](int i) { return a.x[i] + b.x[i]; });
  }
  static inline F sub(F a, F b) {
    return map([&](int i) { return a.x[i] - b.x[i]; });
  }
  static inline F mul(F a, F b) {
    return map([&](int i) { return a.x[i] * b.x[i]; });
  }
  static inline F div(F a, F b) {
    return map([&](int i) { return a.x[i] / b.x[i]; });
  }
  static inline F fma(F a, F b, F c) {
    return map([&](int i) { return a.x[i] * b.x[i] + c.x[i]; });
  }
  // b where either is NaN, as on x86.
  static inline F max(F a, F b) {
    return map([&](int i) { return choose((Ints)(a.x[i] > b.x[i]), a.x[i], b.x[i]); });
  }
  static inline F keep(F a, int first, int last) {
    return map([&](int i) {
      const Ints lane = Ints{0, 1, 2, 3} + 4 * i;
      return choose((Ints)(lane >= first) & (Ints)(lane < last), a.x[i], splat(-__builtin_inff()));
    });
  }
  static inline float first(F a) { return a.x[0][0]; }
  static inline float reduce_max(F a) {
    float r = a.x[0][0];
    for (int i = 0; i < kLanes; ++i) r = a.x[i / 4][i % 4] > r ? a.x[i / 4][i % 4] : r;
    return r;
  }
  static inline float reduce_add(F a) {
    const Quad q = (a.x[0] + a.x[1]) + (a.x[2] + a.x[3]);
    return (q[0] + q[2]) + (q[1] + q[3]);
  }
  static inline F exp2(F a) {
    return map([&](int i) {
      const Quad low = splat(-127.0f), high = splat(127.0f), shift = splat(12582912.0f);  // 1.5 * 2^23: rounds
      Quad t = choose((Ints)(a.x[i] < low), low, a.x[i]);
      t = choose((Ints)(t > high), high, t);
      const Quad shifted = t + shift;
      const Quad f = t - (shifted - shift);
      Quad p = splat(kExp2Coefficients[0]);
      for (int c = 1; c < 6; ++c) p = p * f + splat(kExp2Coefficients[c]);
      p = p * f + splat(1.0f);
      const Ints n = (Ints)shifted - (Ints)shift;
      return p * (Quad)((n + 127) << 23);  // n = -127: times +0
    });
  }
  static inline void widen(const char* p, F& even, F& odd) {
    const F raw = load((const float*)p);
    even = map([&](int i) { return (Quad)((Ints)raw.x[i] << 16); });
    odd = map([&](int i) { return (Quad)((Ints)raw.x[i] & (int32_t)0xffff0000); });
  }
};

}  // namespace

const AttentionKernels kPortableKernels = {
    .f32 = AttentionKernel<F32Steps<Portable, 2, 2>>::attend,
    .bf16 = AttentionKernel<Bf16Steps<Portable, 2, 2>>::attend,
    .bf16_dot = nullptr,
    .bf16_tile = nullptr,
    .tile_begin = nullptr,
    .tile_end = nullptr,
    .rotate = rotate_heads,
    .narrow = narrow_to_bf16,
    .widen_f32 = {widen_k_f32, widen_v_f32},
    .widen_bf16 = {widen_k_bf16, widen_v_bf16},
};

}  // namespace pagedcore::cpu::attention_detail
