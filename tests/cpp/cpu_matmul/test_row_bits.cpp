// Same request, same bits: a row alone, in any batch, at any place of it, on any number of threads.
#include <doctest/doctest.h>

#include "common.hpp"
#include "cpu/matmul/matmul.hpp"

using namespace matmul_test;
using cpu::Isa;
using cpu::ThreadPool;
using Kind = Epilogue::Kind;

// rule: backend.row-stands-alone, cpu.row-stands-alone
TEST_CASE("a row's bits do not depend on the batch around it nor on the number of threads") {
  std::mt19937 random(21);
  constexpr std::int64_t kRows = 150;
  ThreadPool one(1), two(2), five(5);
  for_every_kernel([&](Isa isa, DType dtype) {
    CAPTURE(cpu::name(isa));
    CAPTURE(info(dtype).name);
    for (const auto& [n, k] : {std::pair<std::int64_t, std::int64_t>{77, 67}, {320, 576}}) {
      if (isa == Isa::portable && n > 100) continue;  // slow, and cut the same way
      const Matrix a = Matrix::random(n, k, k, DType::f32, random), b = Matrix::random(n, k, k, DType::f32, random);
      const HostTensor parts[]{a.host(), b.host()};
      const auto stacked = cpu::pack_weight(two, {parts, 1}, PackKind::stacked, isa, dtype);
      const auto gated = cpu::pack_weight(five, parts, PackKind::gated, isa, dtype);
      Matrix in = Matrix::random(kRows, k, k, dtype, random);
      for (const Kind kind : {Kind::store, Kind::gated, Kind::activated, Kind::accumulate})
        for (const Activation activation : {Activation::silu, Activation::gelu}) {
          if (activation == Activation::gelu && (kind == Kind::store || kind == Kind::accumulate)) continue;
          const Weight& weight = kind == Kind::gated ? *gated : *stacked;
          const DType out_type = kind == Kind::gated ? dtype : DType::f32;
          const Epilogue epilogue{kind, activation, nullptr};
          const Matrix start = Matrix::random(kRows, n, n, out_type, random);
          Matrix alone = start;
          for (std::int64_t i = 0; i < kRows; ++i)
            cpu::matmul(one, alone.view().slice_rows(i, 1), in.view().slice_rows(i, 1), weight, epilogue);
          const std::size_t element = out_type == DType::bf16 ? 2 : 4;
          for (ThreadPool* pool : {&one, &two, &five})
            for (const std::int64_t m : {2, 3, 4, 5, 8, 12, 13, 16, 17, 20, 31, 32, 33, 50, 64, 100, 150}) {
              const std::int64_t first = static_cast<std::int64_t>(random() % static_cast<unsigned>(kRows - m + 1));
              Matrix batch = start;
              cpu::matmul(*pool, batch.view().slice_rows(first, m), in.view().slice_rows(first, m), weight, epilogue);
              const auto* got = static_cast<const unsigned char*>(batch.data());
              const auto* expected = static_cast<const unsigned char*>(alone.data());
              const std::size_t offset = static_cast<std::size_t>(first * n) * element;
              CAPTURE(m);
              CAPTURE(first);
              CHECK(std::memcmp(got + offset, expected + offset, static_cast<std::size_t>(m * n) * element) == 0);
            }
        }
    }
  });
}
