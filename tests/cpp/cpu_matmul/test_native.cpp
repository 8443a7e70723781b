// Weights kept in the block format of their file: the bits of the same kernels on the widened weights.
#include <doctest/doctest.h>

#include "blocks.hpp"
#include "common.hpp"
#include "cpu/matmul/layout.hpp"
#include "cpu/matmul/matmul.hpp"
#include "cpu/matmul/native/format.hpp"
#include "pagedcore/error.hpp"

using namespace matmul_test;
using cpu::Isa;
using cpu::ThreadPool;
using Kind = Epilogue::Kind;

namespace {

bool same_or_nan(float x, float y) { return std::memcmp(&x, &y, sizeof x) == 0 || (std::isnan(x) && std::isnan(y)); }

template <class Body>
void for_every_format(const Body& body) {
  for_every_kernel([&](Isa isa, DType dtype) {
    for (const DType format : kFormats) {
      CAPTURE(cpu::name(isa));
      CAPTURE(info(dtype).name);
      CAPTURE(info(format).name);
      body(isa, dtype, format);
    }
  });
}

/// Rows of `native` as a kernel sees them, against to_f32() and one rounding.
void check_rows(const Weight& native, const Blocks& blocks, DType dtype) {
  std::vector<float> row(static_cast<std::size_t>(blocks.k)), expected(row);
  bool same = true;
  for (std::int64_t r = 0; r < blocks.rows; ++r) {
    cpu::unpack_row(native, r, row.data());
    to_f32(blocks.host(), r * blocks.k, expected);
    for (std::size_t i = 0; i < row.size(); ++i) {
      float x = expected[i];
      if (dtype == DType::bf16 && !std::isnan(x)) x = from_bf16(to_bf16(x));
      // What rounds to a subnormal bf16 may become 0, as the dot products of bf16 take it.
      const bool tiny = dtype == DType::bf16 && std::abs(x) < 0x1p-126f && row[i] == 0.0f;
      same = same && (tiny || same_or_nan(row[i], x));
    }
  }
  CHECK(same);
}

}  // namespace

TEST_CASE(
    "every format, instruction set and type: what kernels see is what the file says, also of the wildest scales") {
  std::mt19937 random(71);
  ThreadPool pool(2);
  for_every_format([&](Isa isa, DType dtype, DType format) {
    for (const bool wild : {false, true}) {
      const Blocks blocks = random_blocks(format, 37, 512, random, wild);
      const HostTensor host = blocks.host();
      const auto native = cpu::pack_weight(pool, {&host, 1}, PackKind::stacked, isa, dtype, true);
      CHECK(native->size().native == native->bytes());
      check_rows(*native, blocks, dtype);
    }
  });
}

TEST_CASE("codes and scales at their ends") {
  std::mt19937 random(72);
  ThreadPool pool(1);
  for_every_format([&](Isa isa, DType dtype, DType format) {
    for (const int fill : {0x00, 0xff, 0x80, 0x7f}) {  // of Q8_0: 0, -1, -128, 127
      for (const int bits : {0x0000, 0x8000, 0x0001, 0x83ff, 0x7bff, 0x7c00, 0xfc00, 0x7fff, 0xffff}) {
        const auto scale = static_cast<std::uint16_t>(bits);
        Blocks blocks{format, 5, 256, {}};
        blocks.bytes.assign(bytes_of(format, 5 * 256), static_cast<std::uint8_t>(fill));
        for (std::size_t block = 0; block < blocks.bytes.size(); block += info(format).block_bytes)
          for (const std::size_t at : halves_of(format)) std::memcpy(blocks.bytes.data() + block + at, &scale, 2);
        const HostTensor host = blocks.host();
        check_rows(*cpu::pack_weight(pool, {&host, 1}, PackKind::stacked, isa, dtype, true), blocks, dtype);
      }
    }
  });
}

// rule: cpu.native-bits-are-dense-bits, cpu.row-stands-alone
TEST_CASE("products have the bits of dense weights, whatever the batch, the threads and the leaves of k") {
  std::mt19937 random(73);
  ThreadPool one(1), three(3);
  for_every_format([&](Isa isa, DType dtype, DType format) {
    const std::int64_t k = 768, n = 75, rows = 45;
    const Blocks a = random_blocks(format, n, k, random), b = random_blocks(format, n, k, random);
    const HostTensor pair[]{a.host(), b.host()};
    Matrix in = Matrix::random(rows, k, k + 3, dtype, random);
    const std::vector<std::int64_t> leaves[]{{}, {32, 160, 192, 480, 768}, {64, 130, 768}};
    for (const auto& ends : leaves)
      for (const Kind kind : {Kind::store, Kind::gated}) {
        const WeightForm form(kind == Kind::gated ? PackKind::gated : PackKind::stacked, ends);
        const std::span<const HostTensor> parts = kind == Kind::gated ? std::span(pair) : std::span(pair).first(1);
        const auto dense = cpu::pack_weight(one, parts, form, isa, dtype);
        const auto native = cpu::pack_weight(three, parts, form, isa, dtype, true);
        CHECK(dense->size().native == 0);
        Matrix expected(rows, n, n, DType::f32), got = expected;
        cpu::matmul(one, expected.view(), in.view(), *dense, {kind, Activation::silu, nullptr});
        for (const std::int64_t m : {1, 2, 5, 12, 13, 31, 45})
          for (ThreadPool* pool : {&one, &three}) {
            const std::int64_t first = rows - m;
            cpu::matmul(*pool, got.view().slice_rows(first, m), in.view().slice_rows(first, m), *native,
                        {kind, Activation::silu, nullptr});
            CAPTURE(m);
            CHECK(std::memcmp(&got.f32[got.at(first, 0)], &expected.f32[got.at(first, 0)],
                              static_cast<std::size_t>(m * n) * sizeof(float)) == 0);
          }
      }
  });
}

TEST_CASE("large enough for several blocks of widened panels and of threads") {
  std::mt19937 random(74);
  ThreadPool two(2);
  for_every_kernel([&](Isa isa, DType dtype) {
    if (isa == Isa::portable) return;  // slow, and cut the same way
    const Blocks blocks = random_blocks(DType::q4_k, 1100, 1024, random);
    const HostTensor host = blocks.host();
    const auto dense = cpu::pack_weight(two, {&host, 1}, PackKind::stacked, isa, dtype);
    const auto native = cpu::pack_weight(two, {&host, 1}, PackKind::stacked, isa, dtype, true);
    Matrix in = Matrix::random(70, 1024, 1024, dtype, random), x(70, 1100, 1100, DType::f32), y = x;
    cpu::matmul(two, x.view(), in.view(), *dense, {});
    cpu::matmul(two, y.view(), in.view(), *native, {});
    CHECK(std::memcmp(x.f32.data(), y.f32.data(), x.f32.size() * sizeof(float)) == 0);
  });
}

TEST_CASE("matrices of several formats: each keeps its own, and a panel that two share is dense") {
  std::mt19937 random(75);
  ThreadPool two(2);
  for_every_kernel([&](Isa isa, DType dtype) {
    // 64 rows of q are whole panels on every instruction set; k and v share one, and so do v and the last.
    const Blocks q = random_blocks(DType::q4_k, 64, 256, random), k = random_blocks(DType::q4_0, 33, 256, random);
    const Blocks v = random_blocks(DType::q6_k, 70, 256, random);
    const Matrix last = Matrix::random(3, 256, 256, DType::f32, random);
    const HostTensor parts[]{q.host(), k.host(), v.host(), last.host()};
    const auto dense = cpu::pack_weight(two, parts, PackKind::stacked, isa, dtype);
    const auto native = cpu::pack_weight(two, parts, PackKind::stacked, isa, dtype, true);
    const PackedSize size = native->size(),
                     planned = cpu::packed_weight_size(parts, PackKind::stacked, isa, dtype, true);
    CHECK(size.bytes == planned.bytes);
    CHECK(size.native == planned.native);
    CHECK(size.native > 0);
    CHECK(size.native < size.bytes);
    std::vector<float> x(256), y(256);
    for (std::int64_t row = 0; row < 170; ++row) {
      cpu::unpack_row(*dense, row, x.data());
      cpu::unpack_row(*native, row, y.data());
      CHECK(x == y);
    }
    Matrix in = Matrix::random(20, 256, 256, dtype, random), a(20, 170, 170, DType::f32), b = a;
    for (const std::int64_t m : {1, 20}) {
      cpu::matmul(two, a.view().head(m), in.view().head(m), *dense, {});
      cpu::matmul(two, b.view().head(m), in.view().head(m), *native, {});
      CHECK(std::memcmp(a.f32.data(), b.f32.data(), static_cast<std::size_t>(m * 170) * sizeof(float)) == 0);
    }
    const Blocks other = random_blocks(DType::q5_0, 64, 256, random);
    const HostTensor unlike[]{q.host(), other.host()};  // of a gated pair no panel has one format
    CHECK(cpu::packed_weight_size(unlike, PackKind::gated, isa, dtype, true).native == 0);
  });
}

// rule: cpu.one-packed-copy
TEST_CASE("a native weight takes the bytes of its file, K types up to a twentieth more") {
  for_every_kernel([&](Isa isa, DType dtype) {
    for (const DType format : kFormats) {
      const HostTensor shape{format, {960, 768}, 2};
      const auto file = bytes_of(format, 960 * 768);
      const std::size_t bytes = cpu::packed_weight_size({&shape, 1}, PackKind::stacked, isa, dtype, true).bytes;
      CHECK(bytes >= file);
      CHECK(bytes <= (info(format).block_elements == 256 ? file + file / 20 : file));
    }
    const HostTensor plain{DType::f16, {960, 768}, 2};
    CHECK(cpu::packed_weight_size({&plain, 1}, PackKind::stacked, isa, dtype, true).bytes ==
          cpu::packed_weight_bytes(960, 768, PackKind::stacked, isa, dtype));
  });
}

TEST_CASE("leaves that end inside a kernel's step: the weight is dense") {
  const HostTensor shape{DType::q4_0, {64, 96}, 2};
  const WeightForm odd(PackKind::stacked, {33, 96});
  CHECK(cpu::packed_weight_size({&shape, 1}, odd, Isa::portable, DType::bf16, true).native == 0);
  CHECK(cpu::packed_weight_size({&shape, 1}, odd, Isa::portable, DType::f32, true).native > 0);
}
