// Fragment layouts as the PTX ISA defines them: g = lane / 4, t = lane % 4.
#include <cmath>

#include "emulator/half_math.hpp"
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

float element(const std::uint32_t* words, int i, bool bf16) {
  const auto bits = static_cast<unsigned short>(half_of(words, i));
  return bf16 ? __bfloat162float(__nv_bfloat16(__nv_bfloat16_raw{bits})) : __half2float(__half(__half_raw{bits}));
}

/// Tensor cores cut sums off instead of rounding them.
float toward_zero(double x) {
  const auto nearest = static_cast<float>(x);
  return std::fabs(static_cast<double>(nearest)) > std::fabs(x) ? __uint_as_float(__float_as_uint(nearest) - 1)
                                                                : nearest;
}

void multiply_16bit(const WarpExchange& x, LaneWords (&out)[32]) {
  const bool bf16 = x.op == WarpOp::mma_bf16;
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 8; ++i) a[g + i / 2 % 2 * 8][2 * t + i % 2 + i / 4 * 8] = element(x.in[lane], i, bf16);
    for (int i = 0; i < 4; ++i) b[2 * t + i % 2 + i / 2 * 8][g] = element(x.in[lane] + 4, i, bf16);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + i / 2 * 8, column = 2 * t + i % 2;
      float sum = __uint_as_float(x.in[lane][6 + i]);
      for (int k = 0; k < 16; k += 8) {  // eight products at a time are added before the sum is cut to f32
        double exact = sum;
        for (int j = k; j < k + 8; ++j) exact += static_cast<double>(a[row][j]) * static_cast<double>(b[j][column]);
        sum = toward_zero(exact);
      }
      out[lane][i] = __float_as_uint(sum);
    }
  }
}

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
    case WarpOp::mma_bf16:
      return multiply_16bit(x, out);
    case WarpOp::mma_s8:
      return multiply_s8(x, out);
    default:
      return load_matrices(x, out);
  }
}

}  // namespace cuda_emu
