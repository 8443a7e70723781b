// Block formats, first GGUF's, then those of quantized checkpoints: one struct per format, decoding one block from its
// bytes. The fields of a block are given in their order in memory, integers little-endian, d and m in f16. The
// arithmetic is in f32 and in the order of ggml's reference dequantization, so that results agree with it bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tensor/float16.hpp"

namespace pagedcore::blocks {

inline float load_f16(const std::uint8_t* p) noexcept {
  return f16_to_f32(static_cast<std::uint16_t>(p[0] | (p[1] << 8)));
}

inline std::uint32_t load_u32(const std::uint8_t* p) noexcept {
  return static_cast<std::uint32_t>(p[0]) | (static_cast<std::uint32_t>(p[1]) << 8) |
         (static_cast<std::uint32_t>(p[2]) << 16) | (static_cast<std::uint32_t>(p[3]) << 24);
}

inline float as_float(int value) noexcept { return static_cast<float>(value); }

// ---- 32 elements. Nibble j holds element j in its low and element j + 16 in its high half. ----

/// d, nibbles[16]: d * (q - 8)
struct Q4_0 {
  static constexpr std::size_t bytes = 18, elements = 32;
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const float d = load_f16(in);
    const std::uint8_t* q = in + 2;
    for (int j = 0; j < 16; ++j) out[j] = d * as_float((q[j] & 15) - 8);
    for (int j = 0; j < 16; ++j) out[j + 16] = d * as_float((q[j] >> 4) - 8);
  }
};

/// d, m, nibbles[16]: d * q + m
struct Q4_1 {
  static constexpr std::size_t bytes = 20, elements = 32;
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const float d = load_f16(in);
    const float m = load_f16(in + 2);
    const std::uint8_t* q = in + 4;
    for (int j = 0; j < 16; ++j) out[j] = d * as_float(q[j] & 15) + m;
    for (int j = 0; j < 16; ++j) out[j + 16] = d * as_float(q[j] >> 4) + m;
  }
};

/// d, fifth bits of the 32 elements (u32), nibbles[16]: d * (q - 16)
struct Q5_0 {
  static constexpr std::size_t bytes = 22, elements = 32;
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const float d = load_f16(in);
    const std::uint32_t high = load_u32(in + 2);
    const std::uint8_t* q = in + 6;
    for (int j = 0; j < 16; ++j) {
      const int low_bit = static_cast<int>((high >> j) & 1) << 4;
      const int high_bit = static_cast<int>((high >> (j + 16)) & 1) << 4;
      out[j] = d * as_float(((q[j] & 15) | low_bit) - 16);
      out[j + 16] = d * as_float(((q[j] >> 4) | high_bit) - 16);
    }
  }
};

/// d, m, fifth bits (u32), nibbles[16]: d * q + m
struct Q5_1 {
  static constexpr std::size_t bytes = 24, elements = 32;
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const float d = load_f16(in);
    const float m = load_f16(in + 2);
    const std::uint32_t high = load_u32(in + 4);
    const std::uint8_t* q = in + 8;
    for (int j = 0; j < 16; ++j) {
      const int low_bit = static_cast<int>((high >> j) & 1) << 4;
      const int high_bit = static_cast<int>((high >> (j + 16)) & 1) << 4;
      out[j] = d * as_float((q[j] & 15) | low_bit) + m;
      out[j + 16] = d * as_float((q[j] >> 4) | high_bit) + m;
    }
  }
};

/// d, q[32] (i8): d * q
struct Q8_0 {
  static constexpr std::size_t bytes = 34, elements = 32;
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const float d = load_f16(in);
    for (int j = 0; j < 32; ++j) out[j] = d * as_float(static_cast<std::int8_t>(in[2 + j]));
  }
};

// ---- 256 elements: super-blocks of 8 groups of 32 or 16 groups of 16, each with its own small integer scale. ----

/// scales[16] (scale in the low, minimum in the high nibble), 2-bit q[64], d, dmin: d * scale * q - dmin * minimum.
/// Byte j of q's half h holds elements 128 h + 32 s + j in bits 2 s.
struct Q2_K {
  static constexpr std::size_t bytes = 84, elements = 256;
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const std::uint8_t* q = in + 16;
    const float d = load_f16(in + 80);
    const float dmin = load_f16(in + 82);
    for (int group = 0; group < 16; ++group) {
      const float scale = d * as_float(in[group] & 15);
      const float minimum = dmin * as_float(in[group] >> 4);
      const int shift = 2 * ((group / 2) % 4);
      const std::uint8_t* p = q + 32 * (group / 8) + 16 * (group % 2);
      for (int j = 0; j < 16; ++j) out[16 * group + j] = scale * as_float((p[j] >> shift) & 3) - minimum;
    }
  }
};

/// third bits[32] (bit b of byte j: element 32 b + j; set means no offset), 2-bit q[64] as in Q2_K, 6-bit scales[12],
/// d: d * (scale - 32) * (q - (bit ? 0 : 4)). Scale i: low nibbles of bytes 0-7 then their high nibbles; two high bits
/// in byte 8 + i % 4, bits 2 (i / 4).
struct Q3_K {
  static constexpr std::size_t bytes = 110, elements = 256;
  static int scale_of(const std::uint8_t* packed, int group) noexcept {
    const int low = (packed[group % 8] >> (group < 8 ? 0 : 4)) & 15;
    const int high = (packed[8 + group % 4] >> (2 * (group / 4))) & 3;
    return (low | (high << 4)) - 32;
  }
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const std::uint8_t* q = in + 32;
    const std::uint8_t* packed = in + 96;
    const float d = load_f16(in + 108);
    for (int group = 0; group < 16; ++group) {
      const float scale = d * as_float(scale_of(packed, group));
      const int shift = 2 * ((group / 2) % 4);
      const int bit = group / 2;
      const std::uint8_t* p = q + 32 * (group / 8) + 16 * (group % 2);
      const std::uint8_t* mask = in + 16 * (group % 2);
      for (int j = 0; j < 16; ++j) {
        const int value = ((p[j] >> shift) & 3) - (4 - 4 * ((mask[j] >> bit) & 1));
        out[16 * group + j] = scale * as_float(value);
      }
    }
  }
};

/// The 6-bit scales and minima of Q4_K and Q5_K, 8 of each in 12 bytes.
struct ScalesAndMinima {
  int scale[8];
  int minimum[8];
  explicit ScalesAndMinima(const std::uint8_t* p) noexcept {
    for (int i = 0; i < 4; ++i) {
      scale[i] = p[i] & 63;
      minimum[i] = p[i + 4] & 63;
      scale[i + 4] = (p[i + 8] & 15) | ((p[i] >> 6) << 4);
      minimum[i + 4] = (p[i + 8] >> 4) | ((p[i + 4] >> 6) << 4);
    }
  }
};

/// d, dmin, scales[12], nibbles[128]: d * scale * q - dmin * minimum. Byte j of nibble row r (32 bytes) holds elements
/// 64 r + j and 64 r + 32 + j.
struct Q4_K {
  static constexpr std::size_t bytes = 144, elements = 256;
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const float d = load_f16(in);
    const float dmin = load_f16(in + 2);
    const ScalesAndMinima groups(in + 4);
    for (int group = 0; group < 8; ++group) {
      const float scale = d * as_float(groups.scale[group]);
      const float minimum = dmin * as_float(groups.minimum[group]);
      const int shift = 4 * (group % 2);
      const std::uint8_t* p = in + 16 + 32 * (group / 2);
      for (int j = 0; j < 32; ++j) out[32 * group + j] = scale * as_float((p[j] >> shift) & 15) - minimum;
    }
  }
};

/// d, dmin, scales[12], fifth bits[32] (bit b of byte j: element 32 b + j), nibbles[128] as in Q4_K.
struct Q5_K {
  static constexpr std::size_t bytes = 176, elements = 256;
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const float d = load_f16(in);
    const float dmin = load_f16(in + 2);
    const ScalesAndMinima groups(in + 4);
    const std::uint8_t* high = in + 16;
    for (int group = 0; group < 8; ++group) {
      const float scale = d * as_float(groups.scale[group]);
      const float minimum = dmin * as_float(groups.minimum[group]);
      const int shift = 4 * (group % 2);
      const std::uint8_t* p = in + 48 + 32 * (group / 2);
      for (int j = 0; j < 32; ++j) {
        const int value = ((p[j] >> shift) & 15) | (((high[j] >> group) & 1) << 4);
        out[32 * group + j] = scale * as_float(value) - minimum;
      }
    }
  }
};

/// nibbles[128], two high bits[64], scales[16] (i8), d: d * scale * (q - 32). In half h (128 elements), row s of 32
/// elements has its nibbles in bytes 64 h + 32 (s % 2), low halves for s < 2, and its high bits in bits 2 s.
struct Q6_K {
  static constexpr std::size_t bytes = 210, elements = 256;
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const std::uint8_t* high = in + 128;
    const std::uint8_t* scales = in + 192;
    const float d = load_f16(in + 208);
    for (int group = 0; group < 16; ++group) {
      const float scale = d * as_float(static_cast<std::int8_t>(scales[group]));
      const int half = group / 8;
      const int row = (group / 2) % 4;
      const int column = 16 * (group % 2);
      const std::uint8_t* p = in + 64 * half + 32 * (row % 2) + column;
      const std::uint8_t* h = high + 32 * half + column;
      const int shift = row < 2 ? 0 : 4;
      for (int j = 0; j < 16; ++j) {
        const int value = (((p[j] >> shift) & 15) | (((h[j] >> (2 * row)) & 3) << 4)) - 32;
        out[16 * group + j] = scale * as_float(value);
      }
    }
  }
};

// ---- Powers of two for 32 numbers of four bits (OCP Microscaling 1.0). ----

inline constexpr float kE2M1[16] = {0.0f, 0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                    0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

/// exponent (u8), nibbles[16] as in Q4_0: 2^(exponent - 127) * number. An exponent of 255 stands for infinity here, in
/// ggml for 2^128 within the range of f32, in the specification for NaN.
struct Mxfp4 {
  static constexpr std::size_t bytes = 17, elements = 32;
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const std::uint32_t bits = in[0] == 0 ? std::uint32_t{1} << 22 : static_cast<std::uint32_t>(in[0]) << 23;
    float d;
    std::memcpy(&d, &bits, sizeof d);
    for (int j = 0; j < 16; ++j) out[j] = d * kE2M1[in[1 + j] & 15];
    for (int j = 0; j < 16; ++j) out[j + 16] = d * kE2M1[in[1 + j] >> 4];
  }
};

// ---- Codes of quantized checkpoints: a scale in f32, and in f16 an integer, the zero, for each group. ----

inline float load_f32(const std::uint8_t* p) noexcept {
  float value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

/// scale, zero, nibbles[n / 2], in byte j elements 2 j and 2 j + 1: scale * (q - zero)
template <int N>
struct Int4 {
  static constexpr std::size_t bytes = 6 + N / 2, elements = N;
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const float scale = load_f32(in), zero = load_f16(in + 4);
    for (int j = 0; j < N; ++j) out[j] = scale * (as_float((in[6 + j / 2] >> (4 * (j % 2))) & 15) - zero);
  }
};

/// scale, zero, q[128] (i8): scale * (q - zero)
struct Int8 {
  static constexpr std::size_t bytes = 134, elements = 128;
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const float scale = load_f32(in), zero = load_f16(in + 4);
    for (int j = 0; j < 128; ++j) out[j] = scale * (as_float(static_cast<std::int8_t>(in[6 + j])) - zero);
  }
};

/// scale, numbers[128] (e4m3, where no code is a NaN: 0x7f stands for 480): scale * number
struct Float8 {
  static constexpr std::size_t bytes = 132, elements = 128;
  static void decode(const std::uint8_t* __restrict in, float* __restrict out) noexcept {
    const float scale = load_f32(in);
    for (int j = 0; j < 128; ++j) {
      const int sign = (in[4 + j] & 0x80) << 8, magnitude = (in[4 + j] & 0x7f) << 7;  // f16 has twice the exponents
      out[j] = scale * (256.0f * f16_to_f32(static_cast<std::uint16_t>(sign | magnitude)));
    }
  }
};

}  // namespace pagedcore::blocks
