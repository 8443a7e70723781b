// Normalisation in plain C++: for the baseline of any architecture. Arrays of eight, which compilers turn into whatever
// vectors the baseline has.
#include <string.h>

#include "cpu/elementwise/norm_kernels.hpp"

namespace pagedcore::cpu {
namespace {

struct Vec {
  static constexpr int kWidth = 8;
  float v[kWidth];

  static Vec zero() { return set(0.0f); }
  static Vec set(float x) {
    return map([x](int) { return x; });
  }
  static Vec load(const float* p) {
    return map([p](int i) { return p[i]; });
  }
  static Vec load_part(const float* p, int n) {
    return map([p, n](int i) { return i < n ? p[i] : 0.0f; });
  }
  static Vec add(const Vec& a, const Vec& b) {
    return map([&](int i) { return a.v[i] + b.v[i]; });
  }
  static Vec sub(const Vec& a, const Vec& b) {
    return map([&](int i) { return a.v[i] - b.v[i]; });
  }
  static Vec mul(const Vec& a, const Vec& b) {
    return map([&](int i) { return a.v[i] * b.v[i]; });
  }
  static Vec mul_add(const Vec& a, const Vec& b, const Vec& c) {
    return map([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
  }
  static void to_array(const Vec& a, float* out) { memcpy(out, a.v, sizeof a.v); }

  static void store(float* p, const Vec& a) { store_part(p, a, kWidth); }
  static void store(uint16_t* p, const Vec& a) { store_part(p, a, kWidth); }
  static void store_part(float* p, const Vec& a, int n) {
    for (int i = 0; i < n; ++i) p[i] = a.v[i];
  }
  static void store_part(uint16_t* p, const Vec& a, int n) {
    for (int i = 0; i < n; ++i) p[i] = to_bf16(a.v[i]);
  }

 private:
  template <class F>
  static Vec map(const F& f) {
    Vec r;
    for (int i = 0; i < kWidth; ++i) r.v[i] = f(i);
    return r;
  }

  /// To nearest, ties to even; a NaN stays one.
  static uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return static_cast<uint16_t>((bits >> 16) | 0x0040u);
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
};

}  // namespace
}  // namespace pagedcore::cpu

#include "cpu/elementwise/norm_body.hpp"

namespace pagedcore::cpu {
const NormKernels norm_kernels_portable = kNormKernels;
}
