// The body of every NormKernel, over a vector type `Vec` that the including source defines in its anonymous namespace:
//   kWidth; zero(); set(float); load(const float*); load_part(const float*, n < kWidth), zeros beyond n;
//   store(float* or uint16_t*, v) and store_part(..., n), the latter rounding to bfloat16; add, sub, mul,
//   mul_add(a, b, c) = a * b + c; to_array(v, float[kWidth]).
// Sums run in four chains of kWidth lanes that are merged in one fixed order: the result depends on the row alone.
#pragma once

#include <math.h>
#include <stdint.h>

namespace pagedcore::cpu {
namespace {

float sum_lanes(Vec v) {
  float lane[Vec::kWidth];
  Vec::to_array(v, lane);
  for (int half = Vec::kWidth / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

/// Sum of a term over the row: term(v, s) adds whole vectors to s, tail_term(p, n, s) the last n < kWidth elements.
template <class Term, class TailTerm>
float sum_of(const float* x, int64_t n, const Term& term, const TailTerm& tail_term) {
  constexpr int64_t w = Vec::kWidth;
  Vec s0 = Vec::zero(), s1 = Vec::zero(), s2 = Vec::zero(), s3 = Vec::zero();
  int64_t i = 0;
  for (; i + 4 * w <= n; i += 4 * w) {
    s0 = term(Vec::load(x + i), s0);
    s1 = term(Vec::load(x + i + w), s1);
    s2 = term(Vec::load(x + i + 2 * w), s2);
    s3 = term(Vec::load(x + i + 3 * w), s3);
  }
  for (; i + w <= n; i += w) s0 = term(Vec::load(x + i), s0);
  if (i < n) s1 = tail_term(x + i, static_cast<int>(n - i), s1);
  return sum_lanes(Vec::add(Vec::add(s0, s1), Vec::add(s2, s3)));
}

float sum(const float* x, int64_t n) {
  return sum_of(
      x, n, [](Vec v, Vec s) { return Vec::add(v, s); },
      [](const float* p, int part, Vec s) { return Vec::add(Vec::load_part(p, part), s); });
}

float sum_of_squares(const float* x, int64_t n) {
  return sum_of(
      x, n, [](Vec v, Vec s) { return Vec::mul_add(v, v, s); },
      [](const float* p, int part, Vec s) {
        const Vec v = Vec::load_part(p, part);
        return Vec::mul_add(v, v, s);
      });
}

float sum_of_squared_deviations(const float* x, int64_t n, float mean) {
  const Vec m = Vec::set(mean);
  return sum_of(
      x, n,
      [m](Vec v, Vec s) {
        const Vec d = Vec::sub(v, m);
        return Vec::mul_add(d, d, s);
      },
      [mean](const float* p, int part, Vec s) {
        float deviation[Vec::kWidth] = {};
        for (int j = 0; j < part; ++j) deviation[j] = p[j] - mean;
        const Vec d = Vec::load(deviation);
        return Vec::mul_add(d, d, s);
      });
}

/// out = (in - mean) * scale * (weight + offset) + bias
template <class Out>
void write_row(const NormRow& r, float mean, float scale) {
  constexpr int64_t w = Vec::kWidth;
  const Vec m = Vec::set(mean), s = Vec::set(scale), offset = Vec::set(r.weight_offset);
  Out* out = static_cast<Out*>(r.out);
  const auto value = [&](Vec x, Vec weight, Vec bias) {
    return Vec::add(Vec::mul(Vec::mul(Vec::sub(x, m), s), Vec::add(weight, offset)), bias);
  };
  int64_t i = 0;
  for (; i + w <= r.n; i += w) {
    const Vec bias = r.bias ? Vec::load(r.bias + i) : Vec::zero();
    Vec::store(out + i, value(Vec::load(r.in + i), Vec::load(r.weight + i), bias));
  }
  if (i < r.n) {
    const int part = static_cast<int>(r.n - i);
    const Vec bias = r.bias ? Vec::load_part(r.bias + i, part) : Vec::zero();
    Vec::store_part(out + i, value(Vec::load_part(r.in + i, part), Vec::load_part(r.weight + i, part), bias), part);
  }
}

template <class Out>
void rms_norm(const NormRow& r) {
  const float mean_square = sum_of_squares(r.in, r.n) / static_cast<float>(r.n);
  write_row<Out>(r, 0.0f, 1.0f / sqrtf(mean_square + r.eps));
}

template <class Out>
void layer_norm(const NormRow& r) {
  const float count = static_cast<float>(r.n);
  const float mean = sum(r.in, r.n) / count;
  const float variance = sum_of_squared_deviations(r.in, r.n, mean) / count;
  write_row<Out>(r, mean, 1.0f / sqrtf(variance + r.eps));
}

constexpr NormKernels kNormKernels = {rms_norm<float>, rms_norm<uint16_t>, layer_norm<float>, layer_norm<uint16_t>};

}  // namespace
}  // namespace pagedcore::cpu
