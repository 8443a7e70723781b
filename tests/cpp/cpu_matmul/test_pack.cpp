#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>

#include "common.hpp"
#include "cpu/matmul/layout.hpp"
#include "cpu/matmul/matmul.hpp"
#include "pagedcore/error.hpp"

using namespace matmul_test;
using cpu::Isa;
using cpu::ThreadPool;

TEST_CASE("rows come back as they went in, rounded to the compute type") {
  std::mt19937 random(31);
  ThreadPool pool(3);
  for_every_kernel([&](Isa isa, DType dtype) {
    for (const std::int64_t k : {1, 7, 64, 255, 256, 257, 600}) {
      const Matrix a = Matrix::random(33, k, k, DType::f32, random), b = Matrix::random(9, k, k, DType::bf16, random);
      const HostTensor parts[]{a.host(), b.host()};
      const auto weight = cpu::pack_weight(pool, parts, PackKind::stacked, isa, dtype);
      CHECK(weight->n() == 42);
      std::vector<float> row(static_cast<std::size_t>(k) + 1);
      for (std::int64_t i = 0; i < 42; ++i) {
        row.back() = 123.0f;
        cpu::unpack_row(*weight, i, row.data());
        bool same = row.back() == 123.0f;
        for (std::int64_t j = 0; j < k; ++j) {
          const auto x = static_cast<float>(i < 33 ? a.get(i, j) : b.get(i - 33, j));
          same = same && row[static_cast<std::size_t>(j)] == (dtype == DType::bf16 ? from_bf16(to_bf16(x)) : x);
        }
        CHECK(same);
      }
      CHECK_THROWS_AS(cpu::unpack_row(*weight, 42, row.data()), InvalidArgument);
      CHECK_THROWS_AS(cpu::unpack_row(*weight, -1, row.data()), InvalidArgument);
    }
  });
}

TEST_CASE("rounding to bf16: to nearest, ties to even; infinities and NaN survive") {
  const auto bits = [](std::uint32_t b) {
    float f;
    std::memcpy(&f, &b, 4);
    return f;
  };
  const std::vector<float> values{bits(0x3f808000), bits(0x3f818000), bits(0x3f808001), bits(0x7f800000),
                                  bits(0xff800000), bits(0x7f800001), bits(0x7fffffff), bits(0x7f7fffff)};
  const std::vector<std::uint32_t> expected{0x3f80, 0x3f82, 0x3f81, 0x7f80, 0xff80, 0, 0, 0x7f80};
  HostTensor host;
  host.rank = 1;
  host.shape = {8, 0, 0, 0};
  host.data = std::as_bytes(std::span(values));
  ThreadPool pool(1);
  const auto weight = cpu::pack_weight(pool, {&host, 1}, PackKind::stacked, Isa::portable, DType::bf16);
  float row[8];
  cpu::unpack_row(*weight, 0, row);
  for (std::size_t i = 0; i < 8; ++i) {
    if (std::isnan(values[i]))
      CHECK(std::isnan(row[i]));
    else
      CHECK(row[i] == bits(expected[i] << 16));
  }
}

namespace {

/// A file of two tensors that fails at one byte, if it is asked for it.
struct Source final : ByteSource {
  std::vector<std::byte> bytes;
  std::uint64_t bad = ~std::uint64_t{0};
  mutable std::atomic<std::size_t> most = 0;  // bytes of one read
  HostTensor add(HostTensor tensor) {
    tensor.source = this;
    tensor.offset = bytes.size();
    tensor.length = tensor.data.size();
    bytes.insert(bytes.end(), tensor.data.begin(), tensor.data.end());
    tensor.data = {};
    return tensor;
  }
  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    if (offset <= bad && bad < offset + out.size()) throw Io("the file is shorter now");
    std::memcpy(out.data(), bytes.data() + offset, out.size());
    for (std::size_t seen = most; seen < out.size() && !most.compare_exchange_weak(seen, out.size());) {
    }
  }
};

bool same_panels(const Weight& a, const Weight& b) {
  const auto &x = static_cast<const cpu::PackedWeight&>(a), &y = static_cast<const cpu::PackedWeight&>(b);
  return x.bytes() == y.bytes() && std::memcmp(x.panel(0), y.panel(0), x.bytes()) == 0;
}

}  // namespace

TEST_CASE("tensors of a file are packed like those in memory, read in bounded pieces") {
  std::mt19937 random(33);
  ThreadPool pool(2);
  for_every_kernel([&](Isa isa, DType dtype) {
    // The widest rows do not fit one piece; 20 and 9 rows leave panels that span both parts, and padding.
    for (const std::int64_t k : {1, 300, 20000}) {
      const Matrix a = Matrix::random(20, k, k, DType::f32, random), b = Matrix::random(9, k, k, DType::bf16, random);
      const Matrix c = Matrix::random(20, k, k, DType::bf16, random);
      Source file;
      const HostTensor parts[]{a.host(), b.host()}, stored[]{file.add(a.host()), file.add(b.host())};
      const HostTensor mixed[]{a.host(), stored[1]};
      const HostTensor pair[]{a.host(), c.host()}, stored_pair[]{stored[0], file.add(c.host())};
      const auto pack = [&](std::span<const HostTensor> tensors, PackKind kind) {
        return cpu::pack_weight(pool, tensors, kind, isa, dtype);
      };
      const auto expected = pack(parts, PackKind::stacked);
      CHECK(same_panels(*pack(stored, PackKind::stacked), *expected));
      CHECK(same_panels(*pack(mixed, PackKind::stacked), *expected));
      CHECK(same_panels(*pack(stored_pair, PackKind::gated), *pack(pair, PackKind::gated)));
      CHECK(file.most <= std::size_t{1} << 20);
      file.bad = file.bytes.size() - 1;
      CHECK_THROWS_AS(pack(stored_pair, PackKind::gated), Io);
    }
  });
}

TEST_CASE("any number of threads packs the same bytes, from every element type of checkpoints") {
  ThreadPool one(1), three(3), many(16);
  std::mt19937 random(34);
  // Two whole blocks of 256 a row. 70 rows are several panels, and leave padding in the last.
  constexpr std::int64_t kRows = 70, kColumns = 512;
  for (int type = 0; type <= static_cast<int>(DType::f8_g128); ++type) {
    const auto dtype = static_cast<DType>(type);
    if (dtype >= DType::f64 && dtype <= DType::boolean) continue;  // of no weights
    CAPTURE(info(dtype).name);
    // Any bytes are numbers of these types, NaN among them: the bytes that come out must be the same.
    std::vector<std::uint8_t> first(bytes_of(dtype, kRows * kColumns)), second(first.size());
    for (auto* bytes : {&first, &second})
      for (std::uint8_t& b : *bytes) b = static_cast<std::uint8_t>(random());
    const auto host = [&](const std::vector<std::uint8_t>& bytes) {
      return HostTensor{dtype, {kRows, kColumns}, 2, std::as_bytes(std::span(bytes))};
    };
    Source file;
    const HostTensor parts[]{host(first), host(second)}, stored[]{file.add(parts[0]), file.add(parts[1])};
    for_every_kernel([&](Isa isa, DType compute) {
      for (const PackKind kind : {PackKind::stacked, PackKind::gated}) {
        const auto expected = cpu::pack_weight(one, parts, kind, isa, compute);
        for (ThreadPool* pool : {&three, &many}) {
          CHECK(same_panels(*cpu::pack_weight(*pool, parts, kind, isa, compute), *expected));
          CHECK(same_panels(*cpu::pack_weight(*pool, stored, kind, isa, compute), *expected));
        }
      }
    });
  }
}

// rule: cpu.one-packed-copy
TEST_CASE("one copy: bytes are those of the matrix up to padding") {
  for_every_kernel([&](Isa isa, DType dtype) {
    const std::size_t element = dtype == DType::bf16 ? 2 : 4;
    CHECK(cpu::packed_weight_bytes(960, 576, PackKind::stacked, isa, dtype) == 960 * 576 * element);
    CHECK(cpu::packed_weight_bytes(1536, 576, PackKind::gated, isa, dtype) == 2 * 1536 * 576 * element);
    CHECK(cpu::packed_weight_bytes(1, 1, PackKind::stacked, isa, dtype) <= 32 * 32 * element);
  });
}

TEST_CASE("what cannot be packed is refused") {
  ThreadPool pool(2);
  std::mt19937 random(32);
  const Matrix a = Matrix::random(4, 8, 8, DType::f32, random), b = Matrix::random(4, 9, 9, DType::f32, random);
  const HostTensor x = a.host(), y = b.host();
  const auto pack = [&](std::vector<HostTensor> parts, PackKind kind, DType dtype = DType::f32) {
    return cpu::pack_weight(pool, parts, kind, Isa::portable, dtype);
  };
  CHECK_THROWS_AS(pack({}, PackKind::stacked), InvalidArgument);
  CHECK_THROWS_AS(pack({x, y}, PackKind::stacked), InvalidArgument);
  CHECK_THROWS_AS(pack({x}, PackKind::gated), InvalidArgument);
  CHECK_THROWS_AS(pack({x, y}, PackKind::gated), InvalidArgument);
  CHECK_THROWS_AS(pack({x, x, x}, PackKind::gated), InvalidArgument);
  CHECK_THROWS_AS(pack({x}, PackKind::stacked, DType::f16), InvalidArgument);
  HostTensor bad = x;
  bad.data = bad.data.first(bad.data.size() - 1);
  CHECK_THROWS_AS(pack({bad}, PackKind::stacked), InvalidArgument);
  bad = x;
  bad.shape = {0, 8, 0, 0};
  bad.data = {};
  CHECK_THROWS_AS(pack({bad}, PackKind::stacked), InvalidArgument);
  bad = x;
  bad.dtype = DType::q4_0;  // blocks of 32, rows of 8
  CHECK_THROWS_AS(pack({bad}, PackKind::stacked), InvalidArgument);
  CHECK_THROWS_AS(cpu::packed_weight_bytes(0, 8, PackKind::stacked, Isa::portable, DType::f32), InvalidArgument);
  CHECK_THROWS_AS(cpu::packed_weight_bytes(std::int64_t{1} << 40, std::int64_t{1} << 40, PackKind::stacked,
                                           Isa::portable, DType::f32),
                  InvalidArgument);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // their allocators end the process instead
TEST_CASE("memory that cannot be allocated is OutOfMemory, and the message says how much") {
  constexpr std::int64_t kExtent = std::int64_t{1} << 28;  // 2^57 bytes: more than the address space
  try {
    const cpu::PackedWeight weight(kExtent, kExtent, PackKind::stacked, Isa::portable, DType::bf16);
    FAIL("got the memory");
  } catch (const OutOfMemory& e) {
    CHECK(std::string(e.what()).find(std::to_string(std::size_t{1} << 57)) != std::string::npos);
  }
}
#endif
