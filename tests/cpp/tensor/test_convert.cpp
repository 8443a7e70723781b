#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "pagedcore/error.hpp"
#include "pagedcore/tensor.hpp"
#include "tensor/float16.hpp"

using namespace pagedcore;

namespace {

template <class T>
HostTensor vector_of(DType dtype, const std::vector<T>& values, std::int64_t count) {
  HostTensor tensor;
  tensor.dtype = dtype;
  tensor.shape = {count};
  tensor.rank = 1;
  tensor.data = std::as_bytes(std::span(values));
  return tensor;
}

std::vector<float> floats(const HostTensor& tensor) {
  std::vector<float> out(static_cast<std::size_t>(tensor.count()));
  to_f32(tensor, 0, out);
  return out;
}

// 0x3c00 = 1, 0x3800 = 0.5, 0xc000 = -2
constexpr std::uint8_t one[2] = {0x00, 0x3c}, half[2] = {0x00, 0x38}, minus_two[2] = {0x00, 0xc0};

void put(std::vector<std::uint8_t>& block, std::size_t at, const std::uint8_t (&number)[2]) {
  block[at] = number[0];
  block[at + 1] = number[1];
}

}  // namespace

// rule: tensor.floats-are-exact
TEST_CASE("every f8_e4m3 value is exact") {
  for (unsigned bits = 0; bits < 256; ++bits) {
    const int exponent = static_cast<int>(bits >> 3 & 15), mantissa = static_cast<int>(bits & 7);
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);  // the format's definition
    const float value = f8_e4m3_to_f32(static_cast<std::uint8_t>(bits));
    CAPTURE(bits);
    if ((bits & 0x7f) == 0x7f) {
      CHECK(std::isnan(value));
    } else {
      CHECK(static_cast<double>(value) == (bits & 0x80 ? -magnitude : magnitude));
      CHECK(std::signbit(value) == ((bits & 0x80) != 0));
    }
  }
}

// rule: tensor.floats-are-exact
TEST_CASE("every f16 value is exact") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const int exponent = (bits >> 10) & 31;
    const int mantissa = bits & 1023;
    const float sign = bits & 0x8000 ? -1.0f : 1.0f;
    const float value = f16_to_f32(static_cast<std::uint16_t>(bits));
    if (exponent == 31 && mantissa != 0) {
      REQUIRE(std::isnan(value));
      continue;
    }
    float expected = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                   : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
    if (exponent == 31) expected = std::numeric_limits<float>::infinity();
    REQUIRE(std::bit_cast<std::uint32_t>(value) == std::bit_cast<std::uint32_t>(sign * expected));
  }
}

TEST_CASE("plain types") {
  CHECK(floats(vector_of<float>(DType::f32, {1.5f, -0.0f, 3e38f}, 3)) == std::vector<float>{1.5f, -0.0f, 3e38f});
  CHECK(floats(vector_of<double>(DType::f64, {0.1, -2}, 2)) == std::vector<float>{0.1f, -2});
  CHECK(floats(vector_of<std::uint16_t>(DType::bf16, {0x3f80, 0xc000, 0x7f80}, 3)) ==
        std::vector<float>{1, -2, std::numeric_limits<float>::infinity()});
  CHECK(floats(vector_of<std::uint16_t>(DType::f16, {0x3c00, 0x0001, 0xfbff}, 3)) ==
        std::vector<float>{1, 5.9604644775390625e-8f, -65504});
  CHECK(floats(vector_of<std::int8_t>(DType::i8, {-128, 127}, 2)) == std::vector<float>{-128, 127});
  CHECK(floats(vector_of<std::uint8_t>(DType::u8, {0, 255}, 2)) == std::vector<float>{0, 255});
  CHECK(floats(vector_of<std::int16_t>(DType::i16, {-32768, 7}, 2)) == std::vector<float>{-32768, 7});
  CHECK(floats(vector_of<std::int32_t>(DType::i32, {-5, 1 << 30}, 2)) == std::vector<float>{-5, 1073741824});
  CHECK(floats(vector_of<std::int64_t>(DType::i64, {-5, 1LL << 40}, 2)) == std::vector<float>{-5, 1099511627776.0f});
  CHECK(floats(vector_of<std::uint8_t>(DType::boolean, {0, 1, 2}, 3)) == std::vector<float>{0, 1, 1});
}

TEST_CASE("blocks of 32") {
  SUBCASE("q4_0") {
    std::vector<std::uint8_t> block(18);
    put(block, 0, half);
    block[2] = 0xf1;   // element 0: 1, element 16: 15
    block[17] = 0x08;  // element 15: 8, element 31: 0
    const auto x = floats(vector_of(DType::q4_0, block, 32));
    CHECK(x[0] == -3.5f);
    CHECK(x[16] == 3.5f);
    CHECK(x[15] == 0.0f);
    CHECK(x[31] == -4.0f);
  }
  SUBCASE("q4_1") {
    std::vector<std::uint8_t> block(20);
    put(block, 0, half);
    put(block, 2, minus_two);
    block[5] = 0xa3;  // element 1: 3, element 17: 10
    const auto x = floats(vector_of(DType::q4_1, block, 32));
    CHECK(x[0] == -2.0f);
    CHECK(x[1] == -0.5f);
    CHECK(x[17] == 3.0f);
  }
  SUBCASE("q5_0") {
    std::vector<std::uint8_t> block(22);
    put(block, 0, half);
    block[2] = 0x02;  // fifth bit of element 1
    block[5] = 0x80;  // fifth bit of element 31
    block[7] = 0x05;  // element 1: 5, element 17: 0
    block[21] = 0xf0;
    const auto x = floats(vector_of(DType::q5_0, block, 32));
    CHECK(x[0] == -8.0f);
    CHECK(x[1] == 2.5f);
    CHECK(x[17] == -8.0f);
    CHECK(x[31] == 7.5f);
  }
  SUBCASE("q5_1") {
    std::vector<std::uint8_t> block(24);
    put(block, 0, half);
    put(block, 2, one);
    block[6] = 0x01;  // fifth bit of element 16
    block[8] = 0x21;  // element 0: 1, element 16: 2
    const auto x = floats(vector_of(DType::q5_1, block, 32));
    CHECK(x[0] == 1.5f);
    CHECK(x[16] == 10.0f);
    CHECK(x[31] == 1.0f);
  }
  SUBCASE("q8_0") {
    std::vector<std::uint8_t> block(34);
    put(block, 0, half);
    block[2] = 0x80;
    block[33] = 0x7f;
    const auto x = floats(vector_of(DType::q8_0, block, 32));
    CHECK(x[0] == -64.0f);
    CHECK(x[31] == 63.5f);
  }
}

TEST_CASE("numbers of four bits with a power of two") {
  std::vector<std::uint8_t> block(17);
  block[0] = 128;    // 2
  block[1] = 0x9f;   // element 0: -6, element 16: -0.5
  block[16] = 0x17;  // element 15: 6, element 31: 0.5
  auto x = floats(vector_of(DType::mxfp4, block, 32));
  CHECK(x[0] == -12.0f);
  CHECK(x[16] == -1.0f);
  CHECK(x[15] == 12.0f);
  CHECK(x[31] == 1.0f);
  CHECK(x[1] == 0.0f);
  block[0] = 0;  // 2^-127
  CHECK(floats(vector_of(DType::mxfp4, block, 32))[0] == -6.0f * 0x1p-127f);
  block[0] = 1;
  CHECK(floats(vector_of(DType::mxfp4, block, 32))[0] == -6.0f * 0x1p-126f);
}

TEST_CASE("groups of quantized checkpoints") {
  const float scale = 0.3f;  // no f16
  const std::uint8_t minus_three[] = {0x00, 0xc2}, nine[] = {0x80, 0x48};
  std::vector<std::uint8_t> block(134);
  std::memcpy(block.data(), &scale, 4);
  put(block, 4, nine);
  block[6] = 0x4f;   // elements 0 and 1: 15 and 4
  block[69] = 0x01;  // element 126: 1
  const std::vector<std::uint8_t> long_one(block.begin(), block.begin() + 70),
      short_one(block.begin(), block.begin() + 22);
  const auto four = floats(vector_of(DType::int4_g128, long_one, 128));
  CHECK(four[0] == scale * 6.0f);
  CHECK(four[1] == scale * -5.0f);
  CHECK(four[126] == scale * -8.0f);
  CHECK(four[127] == scale * -9.0f);
  CHECK(floats(vector_of(DType::int4_g32, short_one, 32))[1] == scale * -5.0f);
  put(block, 4, minus_three);
  block[7] = 0x80;
  const auto eight = floats(vector_of(DType::int8_g128, block, 128));
  CHECK(eight[0] == scale * 82.0f);  // 0x4f + 3
  CHECK(eight[1] == scale * -125.0f);
  std::vector<std::uint8_t> floats8(132);
  std::memcpy(floats8.data(), &scale, 4);
  floats8[4] = 0xb8;  // -1
  floats8[5] = 0x01;  // the least, 2^-9
  floats8[131] = 0x7e;
  const auto f8 = floats(vector_of(DType::f8_g128, floats8, 128));
  CHECK(f8[0] == -scale);
  CHECK(f8[1] == scale * 0x1p-9f);
  CHECK(f8[127] == scale * 448.0f);
}

TEST_CASE("super-blocks of 256") {
  SUBCASE("q2_k") {
    std::vector<std::uint8_t> block(84);
    put(block, 80, half);
    put(block, 82, one);
    block[0] = 0x34;        // group 0: scale 4, minimum 3
    block[15] = 0x02;       // group 15: scale 2
    block[16] = 0x02;       // element 0: 2
    block[16 + 63] = 0xc0;  // element 255: 3 (half 1, shift 6, byte 31)
    block[16 + 1] = 0x04;   // element 33: 1, in group 2
    block[2] = 0x1f;        // group 2: scale 15, minimum 1
    const auto x = floats(vector_of(DType::q2_k, block, 256));
    CHECK(x[0] == 1.0f);  // 0.5 * 4 * 2 - 3
    CHECK(x[1] == -3.0f);
    CHECK(x[255] == 3.0f);
    CHECK(x[33] == 6.5f);  // 0.5 * 15 * 1 - 1
    CHECK(x[32] == -1.0f);
  }
  SUBCASE("q3_k") {
    std::vector<std::uint8_t> block(110);
    put(block, 108, half);
    block[96 + 0] = 0x01;         // group 0: low nibble 1
    block[96 + 8] = 0x02 | 0x40;  // high bits: group 0 gets 2, group 12 gets 1
    block[0] = 0x01;              // bit of element 0 set: no offset
    block[32] = 0x03;             // element 0: 3
    const auto x = floats(vector_of(DType::q3_k, block, 256));
    CHECK(x[0] == 1.5f);     // 0.5 * (33 - 32) * 3
    CHECK(x[1] == -2.0f);    // 0.5 * 1 * (0 - 4)
    CHECK(x[16] == 64.0f);   // 0.5 * (0 - 32) * (0 - 4)
    CHECK(x[192] == 32.0f);  // 0.5 * (16 - 32) * (0 - 4)
  }
  SUBCASE("q4_k") {
    std::vector<std::uint8_t> block(144);
    put(block, 0, half);
    put(block, 2, one);
    block[4] = 0x40 | 3;         // scale 0: 3, high bits of scale 4: 1
    block[8] = 0x80 | 2;         // minimum 0: 2, high bits of minimum 4: 2
    block[12] = 0x15;            // scale 4: low 5, minimum 4: low 1
    block[16] = 0x07;            // element 0: 7
    block[16 + 64 + 31] = 0x0f;  // element 159, in group 4
    const auto x = floats(vector_of(DType::q4_k, block, 256));
    CHECK(x[0] == 8.5f);  // 0.5 * 3 * 7 - 2
    CHECK(x[31] == -2.0f);
    CHECK(x[32] == 0.0f);
    CHECK(x[159] == 124.5f);  // 0.5 * 21 * 15 - 33
    CHECK(x[128] == -33.0f);
  }
  SUBCASE("q5_k") {
    std::vector<std::uint8_t> block(176);
    put(block, 0, half);
    put(block, 2, one);
    block[4] = 2;      // scale 0
    block[5] = 1;      // scale 1
    block[9] = 4;      // minimum 1
    block[16] = 0x03;  // fifth bit of elements 0 and 32
    block[48] = 0x51;  // element 0: 1, element 32: 5
    const auto x = floats(vector_of(DType::q5_k, block, 256));
    CHECK(x[0] == 17.0f);
    CHECK(x[32] == 6.5f);  // 0.5 * 1 * 21 - 4
    CHECK(x[33] == -4.0f);
  }
  SUBCASE("q6_k") {
    std::vector<std::uint8_t> block(210);
    put(block, 208, half);
    block[192] = 0xfe;  // scale of group 0: -2
    block[192 + 15] = 3;
    block[0] = 0x05;         // element 0: low nibble 5
    block[128] = 0x01;       // element 0: high bits 1
    block[127] = 0xf0;       // element 255: low nibble 15 (half 1, row 3)
    block[128 + 63] = 0xc0;  // element 255: high bits 3
    const auto x = floats(vector_of(DType::q6_k, block, 256));
    CHECK(x[0] == 11.0f);  // 0.5 * -2 * (21 - 32)
    CHECK(x[1] == 32.0f);
    CHECK(x[255] == 46.5f);  // 0.5 * 3 * (63 - 32)
    CHECK(x[16] == 0.0f);
  }
}

TEST_CASE("a range gives the same bits as the whole, at any alignment") {
  std::vector<std::uint8_t> bytes(1 + 20 * 8);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 37 % 120);
  HostTensor tensor;
  tensor.dtype = DType::q4_1;
  tensor.shape = {2, 128};
  tensor.rank = 2;
  tensor.data = std::as_bytes(std::span(bytes)).subspan(1);
  std::vector<float> whole(256), piece(64);
  to_f32(tensor, 0, whole);
  to_f32(tensor, 96, piece);
  CHECK(std::memcmp(piece.data(), whole.data() + 96, 64 * sizeof(float)) == 0);
}

// rule: tensor.reads-stay-inside
TEST_CASE("ranges outside the tensor, inside a block or past its data are refused") {
  std::vector<std::uint8_t> bytes(36);
  HostTensor tensor = vector_of(DType::q4_0, bytes, 64);
  std::vector<float> out(32);
  CHECK_NOTHROW(to_f32(tensor, 32, out));
  CHECK_NOTHROW(to_f32(tensor, 64, {}));
  CHECK_THROWS_AS(to_f32(tensor, 64, out), InvalidArgument);
  CHECK_THROWS_AS(to_f32(tensor, -32, out), InvalidArgument);
  CHECK_THROWS_AS(to_f32(tensor, 16, out), InvalidArgument);
  CHECK_THROWS_AS(to_f32(tensor, 0, std::span(out).first(31)), InvalidArgument);
  tensor.data = tensor.data.first(35);
  CHECK_THROWS_WITH_AS(to_f32(tensor, 32, out), doctest::Contains("end at byte 36, but the tensor's data has 35 bytes"),
                       InvalidArgument);
}
