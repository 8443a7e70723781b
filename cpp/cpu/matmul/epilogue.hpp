// What happens to the sums of a tile on their way out: bias, activation, the gate, the output type. The same code for
// every tile shape, so that a row's bits do not depend on the tile it was in.
// Include after simd_*.hpp, in per-ISA sources only.
#pragma once

#include <cstdint>

#include "cpu/matmul/kernel.hpp"

namespace pagedcore::cpu {
namespace {

/// Horner's rule, highest coefficient first.
template <int N>
Simd::F polynomial(Simd::F x, const float (&coefficients)[N]) {
  Simd::F sum = Simd::set1(coefficients[0]);
  for (int i = 1; i < N; ++i) sum = Simd::fma(sum, x, Simd::set1(coefficients[i]));
  return sum;
}

/// e^x to 2 ulp; NaN stays NaN. Cody-Waite reduction by ln 2 and the Taylor series, whose next term is below 2^-26.
inline Simd::F exp(Simd::F x) {
  using S = Simd;
  const S::F clamped = S::max(S::set1(-104.0f), S::min(S::set1(89.0f), x));  // beyond: 0 and infinity
  const S::F n = S::round(S::mul(clamped, S::set1(1.44269504f)));
  S::F r = S::fma(n, S::set1(-0.693359375f), clamped);  // exact: n has few bits, and so does the constant
  r = S::fma(n, S::set1(2.12194440e-4f), r);
  constexpr float kTaylor[]{1.0f / 5040.0f, 1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f};
  const S::F p = polynomial(r, kTaylor);
  return S::scale(p, n);
}

inline Simd::F negate(Simd::F x) { return Simd::sub(Simd::zero(), x); }

inline Simd::F silu(Simd::F x) {
  const Simd::F one = Simd::set1(1.0f);
  return Simd::div(x, Simd::add(one, exp(negate(x))));
}

/// x Phi(x), with Phi(x) = erfc(-x / sqrt 2) / 2 so that nothing cancels for negative x. For z >= 0, erfc(z) =
/// e^(-z^2) t Q(t) with t = 1 / (1 + z / 2); Q is a least-squares fit in Chebyshev polynomials over 0 <= z <= 10.
inline Simd::F gelu(Simd::F x) {
  using S = Simd;
  const S::F one = S::set1(1.0f), half = S::set1(0.5f);
  const S::F size = S::min(S::set1(15.0f), S::abs(x));  // Phi(-15) is 0 in f32
  const S::F z = S::mul(size, S::set1(0.707106781f));
  const S::F t = S::div(one, S::fma(z, half, one));
  constexpr float kFit[]{-0.0601087078f, 0.289446101f, -0.496829577f, 0.288515146f, -0.0333990203f,
                         0.205360429f,   0.242479379f, 0.282453842f,  0.282082358f};
  const S::F q = polynomial(t, kFit);
  const S::F square = S::mul(size, size);
  S::F gauss = exp(S::mul(square, S::set1(-0.5f)));
  const S::F lost = S::fma(size, size, negate(square));  // what rounding the square lost; matters in the far tail
  gauss = S::fma(gauss, S::mul(lost, S::set1(-0.5f)), gauss);
  const S::F tail = S::mul(half, S::mul(gauss, S::mul(t, q)));  // Phi(-|x|)
  return S::mul(x, S::where_negative(x, tail, S::sub(one, tail)));
}

/// x (1 + tanh u) / 2 = x / (1 + e^(-2u)) with u = sqrt(2 / pi) (x + 0.044715 x^3).
inline Simd::F gelu_tanh(Simd::F x) {
  using S = Simd;
  const S::F twice_u = S::mul(x, S::fma(S::mul(x, x), S::set1(0.0713548163f), S::set1(1.59576912f)));
  return S::div(x, S::add(S::set1(1.0f), exp(negate(twice_u))));
}

inline Simd::F relu(Simd::F x) { return Simd::max(Simd::zero(), x); }

inline void store_out(const MatmulArgs& a, std::int64_t row, std::int64_t column, int count, Simd::F v) {
  const std::int64_t at = row * a.out_stride + column;
  if (a.out_is_bf16)
    Simd::store_bf16(static_cast<std::uint16_t*>(a.out) + at, v, count);
  else if (count == Simd::lanes)
    Simd::store(static_cast<float*>(a.out) + at, v);
  else
    Simd::store_first(static_cast<float*>(a.out) + at, v, count);
}

inline int columns_left(const MatmulArgs& a, std::int64_t column) {
  const std::int64_t left = a.n - column;
  return left > Simd::lanes ? Simd::lanes : static_cast<int>(left);
}

/// (min(max(up, -limit), limit) + 1) * g * sigmoid(alpha * g), g = min(gate, limit); NaN stays NaN.
inline Simd::F clamped_swiglu(const MatmulArgs& a, Simd::F gate, Simd::F up) {
  using S = Simd;
  const S::F limit = S::set1(a.rows.swiglu_limit), one = S::set1(1.0f);
  const S::F g = S::min(limit, gate), u = S::max(negate(limit), S::min(limit, up));
  const S::F glu = S::div(g, S::add(one, exp(S::mul(g, S::set1(-a.rows.swiglu_alpha)))));
  return S::mul(S::add(u, one), glu);
}

template <Simd::F (*Function)(Simd::F)>
inline Simd::F gated(const MatmulArgs&, Simd::F gate, Simd::F up) {
  return Simd::mul(Function(gate), up);
}

template <Simd::F (*Gated)(const MatmulArgs&, Simd::F, Simd::F)>
void finish_gated(const MatmulArgs& a, std::int64_t row, int rows, std::int64_t panel, const float* sums) {
  const std::int64_t column = panel * Simd::lanes;
  const int count = columns_left(a, column);
  Simd::F gate_bias = Simd::zero(), up_bias = Simd::zero();
  if (a.bias != nullptr) {
    gate_bias = Simd::load_first(a.bias + column, count);
    up_bias = Simd::load_first(a.bias + a.n + column, count);
  }
  for (int r = 0; r < rows; ++r, sums += 2 * Simd::lanes) {
    Simd::F gate = Simd::load(sums), up = Simd::load(sums + Simd::lanes);
    if (a.bias != nullptr) {
      gate = Simd::add(gate, gate_bias);
      up = Simd::add(up, up_bias);
    }
    Simd::F v = Gated(a, gate, up);
    if (a.rows.scale != nullptr) v = Simd::mul(v, Simd::set1(a.rows.scale[(row + r) * a.rows.scale_stride]));
    store_out(a, row + r, column, count, v);
  }
}

inline Simd::F identity(Simd::F x) { return x; }

template <Simd::F (*Function)(Simd::F)>
void finish_stacked(const MatmulArgs& a, std::int64_t row, int rows, std::int64_t panel, const float* sums) {
  for (int half = 0; half < 2; ++half) {
    const std::int64_t column = (2 * panel + half) * Simd::lanes;
    const int count = columns_left(a, column);
    if (count <= 0) return;
    const Simd::F bias = a.bias == nullptr ? Simd::zero() : Simd::load_first(a.bias + column, count);
    for (int r = 0; r < rows; ++r) {
      Simd::F v = Simd::load(sums + (2 * r + half) * Simd::lanes);
      if (a.bias != nullptr) v = Simd::add(v, bias);
      if (a.finish == Finish::accumulate)
        v = Simd::add(Simd::load_first(static_cast<float*>(a.out) + (row + r) * a.out_stride + column, count), v);
      store_out(a, row + r, column, count, Function(v));
    }
  }
}

template <Simd::F (*Function)(Simd::F)>
void finish_activated(const MatmulArgs& a, std::int64_t row, int rows, std::int64_t panel, const float* sums) {
  if (a.finish == Finish::gated)
    finish_gated<gated<Function>>(a, row, rows, panel, sums);
  else
    finish_stacked<Function>(a, row, rows, panel, sums);
}

/// Of Finish::leaf_sums: adds the sums of a leaf, [rows][2 * lanes], to those of its rows.
inline void add_leaf(const MatmulArgs& a, std::int64_t row, int rows, std::int64_t leaf, const float* sums) {
  float* const out = static_cast<float*>(a.out) + leaf * a.out_stride;
  for (int r = 0; r < rows; ++r, sums += 2 * Simd::lanes) {
    float* to = out + a.rows.places[row + r] * 2 * Simd::lanes;
    Simd::store(to, Simd::add(Simd::load(to), Simd::load(sums)));
    Simd::store(to + Simd::lanes, Simd::add(Simd::load(to + Simd::lanes), Simd::load(sums + Simd::lanes)));
  }
}

/// Writes rows [row, row + rows) of the panel's columns. sums [rows][2 * lanes]; of a gated pair, lanes gates, then
/// lanes ups.
void finish_tile(const MatmulArgs& a, std::int64_t row, int rows, std::int64_t panel, const float* sums) {
  if (a.finish == Finish::store || a.finish == Finish::accumulate)
    return finish_stacked<identity>(a, row, rows, panel, sums);
  switch (a.activation) {
    case ActivationFunction::silu:
      return finish_activated<silu>(a, row, rows, panel, sums);
    case ActivationFunction::gelu:
      return finish_activated<gelu>(a, row, rows, panel, sums);
    case ActivationFunction::gelu_tanh:
      return finish_activated<gelu_tanh>(a, row, rows, panel, sums);
    case ActivationFunction::relu:
      return finish_activated<relu>(a, row, rows, panel, sums);
    case ActivationFunction::clamped_swiglu:  // check_matmul: of gated only
      return finish_gated<clamped_swiglu>(a, row, rows, panel, sums);
  }
}

}  // namespace
}  // namespace pagedcore::cpu
