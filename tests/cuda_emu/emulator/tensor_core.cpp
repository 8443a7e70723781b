// Fragment layouts as the PTX ISA defines them: g = lane / 4, t = lane % 4. Tests of products spend most of their time
// here, on copies of what lanes hold: compiled for speed, without sanitizers (CMakeLists.txt).
#include <bit>
#include <cmath>

#include "emulator/warp.hpp"

namespace cuda_emu {
namespace {

std::uint32_t half_of(const std::uint32_t* words, int i) { return words[i / 2] >> (i % 2 * 16) & 0xffffu; }

void load_matrices(const WarpExchange& x, LaneWords (&out)[32]) {
  const bool transposed = x.op == WarpOp::ldmatrix_trans;
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int matrix = 0; matrix < x.words_out; ++matrix) {
      const auto* rows = &x.in[matrix * 8];
      out[lane][matrix] = transposed ? half_of(rows[2 * t], g) | half_of(rows[2 * t + 1], g) << 16
                                     : half_of(rows[g], 2 * t) | half_of(rows[g], 2 * t + 1) << 16;
    }
  }
}

float from_bf16(std::uint32_t bits) { return std::bit_cast<float>(bits << 16); }
/// Without a branch, unlike the toolkit's function for the host, so that a loop over it is vectorised.
float from_f16(std::uint32_t bits) {
  const float magnitude = std::bit_cast<float>((bits & 0x7fffu) << 13) * 0x1p112f;
  const std::uint32_t no_number = (bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | no_number | (bits & 0x8000u) << 16);
}

/// Tensor cores cut sums off instead of rounding them.
float toward_zero(double x) {
  const auto nearest = static_cast<float>(x);
  const std::uint32_t too_large = std::fabs(static_cast<double>(nearest)) > std::fabs(x) ? 1 : 0;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(nearest) - too_large);
}

template <float (*kElement)(std::uint32_t)>
[[gnu::always_inline]] inline void multiply_16bit(const WarpExchange& x, LaneWords (&out)[32]) {
  std::uint32_t a_bits[16 * 16], b_bits[16 * 8];
  float a[16 * 16], b[16 * 8], sums[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    const std::uint32_t* in = x.in[lane];
    for (int i = 0; i < 8; ++i) a_bits[(g + i / 2 % 2 * 8) * 16 + 2 * t + i % 2 + i / 4 * 8] = half_of(in, i);
    for (int i = 0; i < 4; ++i) b_bits[(2 * t + i % 2 + i / 2 * 8) * 8 + g] = half_of(in + 4, i);
    for (int i = 0; i < 4; ++i) sums[g + i / 2 * 8][2 * t + i % 2] = std::bit_cast<float>(in[6 + i]);
  }
  for (int i = 0; i < 16 * 16; ++i) a[i] = kElement(a_bits[i]);
  for (int i = 0; i < 16 * 8; ++i) b[i] = kElement(b_bits[i]);
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; k += 8) {  // eight products at a time are added before the sum is cut to f32
      double exact[8];
      for (int column = 0; column < 8; ++column) exact[column] = double{sums[row][column]};
      for (int j = k; j < k + 8; ++j) {
        for (int column = 0; column < 8; ++column)
          exact[column] += static_cast<double>(a[row * 16 + j]) * static_cast<double>(b[j * 8 + column]);
      }
      for (int column = 0; column < 8; ++column) sums[row][column] = toward_zero(exact[column]);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) out[lane][i] = std::bit_cast<std::uint32_t>(sums[g + i / 2 * 8][2 * t + i % 2]);
  }
}

void multiply_f16(const WarpExchange& x, LaneWords (&out)[32]) { multiply_16bit<from_f16>(x, out); }
void multiply_bf16(const WarpExchange& x, LaneWords (&out)[32]) { multiply_16bit<from_bf16>(x, out); }
#ifdef __x86_64__  // the same operations, four times as fast
[[gnu::target("avx2")]] void multiply_f16_avx2(const WarpExchange& x, LaneWords (&out)[32]) {
  multiply_16bit<from_f16>(x, out);
}
[[gnu::target("avx2")]] void multiply_bf16_avx2(const WarpExchange& x, LaneWords (&out)[32]) {
  multiply_16bit<from_bf16>(x, out);
}
const bool has_avx2 = __builtin_cpu_supports("avx2");
const auto f16_product = has_avx2 ? multiply_f16_avx2 : multiply_f16;
const auto bf16_product = has_avx2 ? multiply_bf16_avx2 : multiply_bf16;
#else
constexpr auto f16_product = multiply_f16, bf16_product = multiply_bf16;
#endif

void multiply_s8(const WarpExchange& x, LaneWords (&out)[32]) {
  const auto byte = [](const std::uint32_t* words, int i) {
    return static_cast<std::int32_t>(static_cast<std::int8_t>(words[i / 4] >> (i % 4 * 8) & 0xffu));
  };
  std::int32_t a[16][32], b[32][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 16; ++i) a[g + i / 4 % 2 * 8][4 * t + i % 4 + i / 8 * 16] = byte(x.in[lane], i);
    for (int i = 0; i < 8; ++i) b[4 * t + i % 4 + i / 4 * 16][g] = byte(x.in[lane] + 4, i);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      std::uint32_t sum = x.in[lane][6 + i];
      for (int k = 0; k < 32; ++k) sum += static_cast<std::uint32_t>(a[g + i / 2 * 8][k] * b[k][2 * t + i % 2]);
      out[lane][i] = sum;
    }
  }
}

}  // namespace

void resolve_tensor_core(const WarpExchange& x, LaneWords (&out)[32]) {
  if (x.mask != 0xffffffffu) fail("ldmatrix and mma need all 32 lanes", x.where);
  switch (x.op) {
    case WarpOp::mma_f16:
      return f16_product(x, out);
    case WarpOp::mma_bf16:
      return bf16_product(x, out);
    case WarpOp::mma_s8:
      return multiply_s8(x, out);
    default:
      return load_matrices(x, out);
  }
}

}  // namespace cuda_emu
