// From the blocks of a file to native panels. Codes and scales only change places.
#include "tensor/blocks.hpp"

#include <cstring>

#include "cpu/matmul/native/format.hpp"

namespace pagedcore::cpu {
namespace {

using std::uint8_t;

/// 32 nibbles: byte j holds code j in its low and code j + 16 in its high half.
void read_nibbles(const uint8_t* in, uint8_t* codes) {
  for (int j = 0; j < 16; ++j) codes[j] = in[j] & 15;
  for (int j = 0; j < 16; ++j) codes[j + 16] = in[j] >> 4;
}

void add_fifth_bits(const uint8_t* in, uint8_t* codes) {
  for (int j = 0; j < 32; ++j) codes[j] = static_cast<uint8_t>(codes[j] | ((in[j / 8] >> (j % 8)) & 1) << 4);
}

/// 256 nibbles: byte j of row r of 32 bytes holds codes 64 r + j and 64 r + 32 + j.
void read_super_nibbles(const uint8_t* in, uint8_t* codes) {
  for (int row = 0; row < 4; ++row)
    for (int j = 0; j < 32; ++j) {
      codes[64 * row + j] = in[32 * row + j] & 15;
      codes[64 * row + 32 + j] = in[32 * row + j] >> 4;
    }
}

/// 256 pairs of bits: byte j of half h of 32 bytes holds code 128 h + 32 s + j in bits 2 s.
void read_pairs(const uint8_t* in, uint8_t* codes) {
  for (int i = 0; i < 256; ++i) codes[i] = (in[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4))) & 3;
}

void read_scales_and_minima(const uint8_t* in, NativeBlock& block) {
  const blocks::ScalesAndMinima both(in);
  for (int group = 0; group < 8; ++group) {
    block.scales[group][0] = static_cast<uint8_t>(both.scale[group]);
    block.scales[group][1] = static_cast<uint8_t>(both.minimum[group]);
  }
}

void read_q2_k(const uint8_t* in, NativeBlock& block) {
  std::memcpy(block.header, in + 80, 4);
  for (int i = 0; i < 16; ++i) block.scales[i / 2][i % 2] = in[i];
  read_pairs(in + 16, block.codes);
}

void read_q3_k(const uint8_t* in, NativeBlock& block) {
  std::memcpy(block.header, in + 108, 2);
  for (int i = 0; i < 16; ++i) block.scales[i / 2][i % 2] = static_cast<uint8_t>(blocks::Q3_K::scale_of(in + 96, i));
  read_pairs(in + 32, block.codes);
  for (int i = 0; i < 256; ++i)
    block.codes[i] = static_cast<uint8_t>(block.codes[i] | ((in[i % 32] >> (i / 32)) & 1) << 2);
}

void read_q4_k(const uint8_t* in, NativeBlock& block) {
  std::memcpy(block.header, in, 4);
  read_scales_and_minima(in + 4, block);
  read_super_nibbles(in + 16, block.codes);
}

void read_q5_k(const uint8_t* in, NativeBlock& block) {
  std::memcpy(block.header, in, 4);
  read_scales_and_minima(in + 4, block);
  read_super_nibbles(in + 48, block.codes);
  for (int i = 0; i < 256; ++i)
    block.codes[i] = static_cast<uint8_t>(block.codes[i] | ((in[16 + i % 32] >> (i / 32)) & 1) << 4);
}

void read_q6_k(const uint8_t* in, NativeBlock& block) {
  std::memcpy(block.header, in + 208, 2);
  for (int i = 0; i < 16; ++i) block.scales[i / 2][i % 2] = in[192 + i];
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, row = i / 32 % 4, j = i % 32;
    const int low = (in[64 * half + 32 * (row % 2) + j] >> (row < 2 ? 0 : 4)) & 15;
    block.codes[i] = static_cast<uint8_t>(low | ((in[128 + 32 * half + j] >> (2 * row)) & 3) << 4);
  }
}

/// Four codes, the lowest bytes of each 16 bits of `x`, to 16 bits; codes of at most four bits.
std::uint64_t gathered_nibbles(std::uint64_t x) {
  x = (x | x >> 12) & 0x000000ff000000ffu;
  return (x | x >> 24) & 0xffffu;
}

/// The planes of one lane of a quarter (format.hpp) from its sixteen codes, which lie in every second byte.
void write_lane(std::int64_t bits, const uint8_t* codes, int lanes, int lane, unsigned char* quarter) {
  const auto put = [&](auto value) {
    std::memcpy(quarter + lane * static_cast<int>(sizeof value), &value, sizeof value);
  };
  if (bits == 8) {
    for (int t = 0; t < 16; ++t) quarter[t * lanes + lane] = codes[2 * t];
    return;
  }
  if (bits >= 4)
    for (int half = 0; half < 2; ++half, quarter += 4 * lanes) {
      std::uint64_t x[2];
      std::memcpy(x, codes + 16 * half, 15);  // the byte that follows the last code is not ours
      constexpr std::uint64_t kNibbles = 0x000f000f000f000fu;
      put(static_cast<std::uint32_t>(gathered_nibbles(x[0] & kNibbles) | gathered_nibbles(x[1] & kNibbles) << 16));
    }
  if (bits == 2 || bits == 3 || bits == 6) {
    std::uint32_t pairs = 0;
    for (int t = 0; t < 16; ++t)
      pairs |= static_cast<std::uint32_t>((codes[2 * t] >> (bits == 6 ? 4 : 0)) & 3) << (2 * t);
    put(pairs);
    quarter += 4 * lanes;
  }
  if (bits == 3 || bits == 5) {
    std::uint32_t upper = 0;
    for (int t = 0; t < 16; ++t) upper |= static_cast<std::uint32_t>((codes[2 * t] >> (bits - 1)) & 1) << t;
    put(static_cast<std::uint16_t>(upper));
  }
}

/// The planes of one column (integer/expand.hpp) from its 32 codes.
void write_quads(std::int64_t bits, const uint8_t* codes, int lanes, int lane, unsigned char* planes) {
  std::uint32_t quads[8];
  std::memcpy(quads, codes, sizeof quads);
  unsigned char* plane = planes + 4 * lane;
  const auto put = [&](std::uint32_t quad) {
    std::memcpy(plane, &quad, sizeof quad);
    plane += 4 * lanes;
  };
  if (bits == 8)
    for (const std::uint32_t quad : quads) put(quad);
  if (bits == 4 || bits == 5 || bits == 6)
    for (int i = 0; i < 4; ++i) put((quads[i] & 0x0f0f0f0fu) | (quads[i + 4] & 0x0f0f0f0fu) << 4);
  if (bits == 2 || bits == 3 || bits == 6)
    for (int half = 0; half < 2; ++half) {
      std::uint32_t pairs = 0;
      for (int i = 0; i < 4; ++i) pairs |= ((quads[4 * half + i] >> (bits == 6 ? 4 : 0)) & 0x03030303u) << (2 * i);
      put(pairs);
    }
  if (bits == 3 || bits == 5) {
    std::uint32_t upper = 0;
    for (int i = 0; i < 8; ++i) upper |= ((quads[i] >> (bits - 1)) & 0x01010101u) << i;
    put(upper);
  }
}

/// Numbers of `field` bytes, each to its own row of `columns`.
void write_fields(const uint8_t* from, std::int64_t bytes, std::int64_t field, std::int64_t columns, int column,
                  unsigned char* to) {
  for (std::int64_t at = 0; at < bytes; at += field)
    std::memcpy(to + at * columns + column * field, from + at, static_cast<std::size_t>(field));
}

/// Codes of quantized checkpoints: byte j holds codes 2 j and 2 j + 1.
void read_pairs_of_nibbles(const uint8_t* in, int count, uint8_t* codes) {
  for (int j = 0; j < count; ++j) codes[j] = (in[j / 2] >> (4 * (j % 2))) & 15;
}

}  // namespace

void read_block(const NativeFormat& format, const uint8_t* in, NativeBlock& block) {
  switch (format.dtype) {
    case DType::q4_0:
      std::memcpy(block.scales[0], in, 2);
      return read_nibbles(in + 2, block.codes);
    case DType::q4_1:
      std::memcpy(block.scales[0], in, 4);
      return read_nibbles(in + 4, block.codes);
    case DType::q5_0:
      std::memcpy(block.scales[0], in, 2);
      read_nibbles(in + 6, block.codes);
      return add_fifth_bits(in + 2, block.codes);
    case DType::q5_1:
      std::memcpy(block.scales[0], in, 4);
      read_nibbles(in + 8, block.codes);
      return add_fifth_bits(in + 4, block.codes);
    case DType::q8_0:
      std::memcpy(block.scales[0], in, 2);
      std::memcpy(block.codes, in + 2, 32);
      return;
    case DType::q2_k:
      return read_q2_k(in, block);
    case DType::q3_k:
      return read_q3_k(in, block);
    case DType::q4_k:
      return read_q4_k(in, block);
    case DType::q5_k:
      return read_q5_k(in, block);
    case DType::q6_k:
      return read_q6_k(in, block);
    case DType::mxfp4:
      block.scales[0][0] = in[0];
      return read_nibbles(in + 1, block.codes);
    case DType::int4_g32:
    case DType::int4_g128:
      std::memcpy(block.header, in, 6);
      return read_pairs_of_nibbles(in + 6, static_cast<int>(kGroup * format.groups), block.codes);
    case DType::int8_g128:
      std::memcpy(block.header, in, 6);
      std::memcpy(block.codes, in + 6, 128);
      return;
    case DType::f8_g128:
      std::memcpy(block.header, in, 4);
      std::memcpy(block.codes, in + 4, 128);
      return;
    default:
      return;  // not a native format
  }
}

void write_block(const NativeFormat& format, const NativeBlock& block, int lanes, CodeOrder order, int column,
                 std::int64_t index, unsigned char* panel) {
  const std::int64_t columns = 2 * lanes, quarter_bytes = 2 * format.code_bits * lanes;
  const int v = column / lanes, inside = column % lanes;
  unsigned char* to = panel + index * format.block_bytes() * columns;
  write_fields(block.header, format.header_bytes, 2, columns, column, to);
  to += format.header_bytes * columns;
  for (std::int64_t group = 0; group < format.groups; ++group, to += format.group_bytes() * columns) {
    write_fields(block.scales[group], format.scale_bytes, format.scale_field, columns, column, to);
    unsigned char* codes = to + format.scale_bytes * columns;
    if (order == CodeOrder::integer) {
      write_quads(format.code_bits, block.codes + kGroup * group, lanes, inside, codes + v * 2 * quarter_bytes);
      continue;
    }
    for (int odd = 0; odd < 2; ++odd) {
      const bool bf16 = order == CodeOrder::bf16;
      const int e = bf16 ? inside / (lanes / 2) : odd, lane = bf16 ? inside % (lanes / 2) * 2 + odd : inside;
      write_lane(format.code_bits, block.codes + kGroup * group + odd, lanes, lane,
                 codes + (2 * v + e) * quarter_bytes);
    }
  }
}

}  // namespace pagedcore::cpu
