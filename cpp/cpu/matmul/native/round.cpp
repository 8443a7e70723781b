// From numbers to blocks, for weights that are rounded when they are loaded.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "cpu/matmul/native/format.hpp"
#include "tensor/float16.hpp"

namespace pagedcore::cpu {
namespace {

constexpr std::uint16_t kNan = 0x7e00, kLargest = 0x7bff;  // in f16

/// To nearest, ties to even; at most the largest finite number.
std::uint16_t to_f16(float x) {
  const auto sign = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16 & 0x8000u);
  const float size = std::abs(x);
  if (size >= 65504.0f) return sign | kLargest;
  if (size < 0x1p-14f) return sign | static_cast<std::uint16_t>(std::nearbyint(size * 0x1p24f));  // subnormal
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(size) - (112u << 23);
  return static_cast<std::uint16_t>(sign | (bits + 0xfffu + (bits >> 13 & 1u)) >> 13);
}

struct Range {
  float scale = 0, minimum = 0;
};

std::uint8_t code_of(float x, const Range& range) {
  const float code = range.scale > 0 ? std::nearbyint((x - range.minimum) / range.scale) : 0.0f;
  return static_cast<std::uint8_t>(std::clamp(code, 0.0f, 15.0f));
}

/// Both as f16 has them; no scale below 0.
Range kept(double scale, double minimum) {
  return {f16_to_f32(to_f16(static_cast<float>(std::max(0.0, scale)))),
          f16_to_f32(to_f16(static_cast<float>(minimum)))};
}

double squared_error(const float* numbers, const Range& range) {
  double sum = 0;
  for (int i = 0; i < kGroup; ++i) {
    const double error = double{numbers[i]} - (double{range.scale} * code_of(numbers[i], range) + range.minimum);
    sum += error * error;
  }
  return sum;
}

/// Scale and minimum of least squares, given the codes that `range` makes.
Range fitted(const float* numbers, const Range& range) {
  double n = kGroup, codes = 0, squares = 0, sum = 0, both = 0;
  for (int i = 0; i < kGroup; ++i) {
    const double code = code_of(numbers[i], range);
    codes += code;
    squares += code * code;
    sum += numbers[i];
    both += code * numbers[i];
  }
  const double determinant = n * squares - codes * codes;
  if (determinant <= 0) return range;
  const double scale = (n * both - codes * sum) / determinant;
  return kept(scale, (sum - scale * codes) / n);
}

/// The ends may lie inside those of the numbers, by up to a tenth of the way between them.
Range best_range(const float* numbers) {
  const auto [low, high] = std::minmax_element(numbers, numbers + kGroup);
  const double width = double{*high} - *low;
  Range best = kept(width / 15, *low);
  double least = squared_error(numbers, best);
  for (int tenths = 0; tenths <= 4; ++tenths) {
    const double cut = 0.025 * tenths * width;
    Range range = kept((width - 2 * cut) / 15, *low + cut);
    for (int pass = 0; pass < 2; ++pass) {
      range = fitted(numbers, range);
      const double error = squared_error(numbers, range);
      if (error >= least) continue;
      least = error;
      best = range;
    }
  }
  return best;
}

void put(std::uint16_t number, std::uint8_t* to) { std::memcpy(to, &number, sizeof number); }

}  // namespace

void round_block(const NativeFormat& format, const float* numbers, NativeBlock& block) {
  block = {};
  const bool finite = std::all_of(numbers, numbers + kGroup, [](float x) { return std::isfinite(x); });
  if (!finite) return put(kNan, block.scales[0]);
  if (format.dtype == DType::q4_1) {
    const Range range = best_range(numbers);
    put(to_f16(range.scale), block.scales[0]);
    put(to_f16(range.minimum), block.scales[0] + 2);
    for (int i = 0; i < kGroup; ++i) block.codes[i] = code_of(numbers[i], range);
    return;
  }
  float largest = 0;
  for (int i = 0; i < kGroup; ++i) largest = std::max(largest, std::abs(numbers[i]));
  std::uint16_t bits = to_f16(largest / 127);
  if (bits < kLargest && f16_to_f32(bits) * 127 < largest) ++bits;
  put(bits, block.scales[0]);
  const float scale = f16_to_f32(bits);
  for (int i = 0; i < kGroup && scale > 0; ++i) {
    const auto code = static_cast<std::int8_t>(std::clamp(std::nearbyint(numbers[i] / scale), -127.0f, 127.0f));
    std::memcpy(block.codes + i, &code, 1);
  }
}

}  // namespace pagedcore::cpu
