// The open softmax of some query rows over one segment of context, and the merge of two of them.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>

namespace pagedcore::cpu::attention_detail {

/// Row r stands for exp2(-m[r]) * sum, with l[r] the sum of exponentials and acc[r] the sum of exponentials times V.
struct SoftmaxState {
  float* m;    // [rows]
  float* l;    // [rows]
  float* acc;  // [rows][width]

  static std::size_t floats(int rows, int width) noexcept {
    return static_cast<std::size_t>(rows) * (static_cast<std::size_t>(width) + 2) + 32;
  }
  /// In `memory`, which is 64-byte aligned and holds floats(rows, width); so is acc.
  static SoftmaxState at(float* memory, int rows) noexcept {
    const auto n = static_cast<std::size_t>(rows);
    return {memory, memory + n, memory + (2 * n + 15) / 16 * 16};
  }
  void open(int rows, int width) noexcept {
    for (int r = 0; r < rows; ++r) {
      m[r] = -std::numeric_limits<float>::infinity();
      l[r] = 0.0f;
    }
    for (int i = 0; i < rows * width; ++i) acc[i] = 0.0f;
  }
};

/// into = into, then the segment after it. A segment that a row does not see leaves the row's bits as they are.
inline void merge(SoftmaxState& into, const SoftmaxState& next, int rows, int width) noexcept {
  for (int r = 0; r < rows; ++r) {
    float* x = into.acc + r * width;
    const float* y = next.acc + r * width;
    if (next.m[r] == -std::numeric_limits<float>::infinity() && next.l[r] == 0.0f) continue;
    if (into.m[r] == -std::numeric_limits<float>::infinity() && into.l[r] == 0.0f) {
      into.m[r] = next.m[r];
      into.l[r] = next.l[r];
      for (int i = 0; i < width; ++i) x[i] = y[i];
      continue;
    }
    const float m = into.m[r] > next.m[r] ? into.m[r] : next.m[r];
    const float a = std::exp2(into.m[r] - m), b = std::exp2(next.m[r] - m);
    for (int i = 0; i < width; ++i) x[i] = x[i] * a + y[i] * b;
    into.l[r] = into.l[r] * a + next.l[r] * b;
    into.m[r] = m;
  }
}

/// What multiplies acc of a row whose whole context is in (m, l, acc), where one more token without value has the score
/// `sink`, in base 2 as all scores are.
inline float inverse_with_sink(float m, float l, float sink) noexcept {
  if (sink == -std::numeric_limits<float>::infinity()) return 1.0f / l;
  const float top = sink < m ? m : sink;
  const float context = std::exp2(m - top);
  return context / (l * context + std::exp2(sink - top));
}

}  // namespace pagedcore::cpu::attention_detail
