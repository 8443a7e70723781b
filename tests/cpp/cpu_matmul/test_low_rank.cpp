// What adapters add to products, against double precision and against each row alone.
#include <doctest/doctest.h>

#include "common.hpp"
#include "cpu/matmul/low_rank.hpp"
#include "pagedcore/error.hpp"

using namespace matmul_test;
using cpu::Isa;
using cpu::ThreadPool;
using Kind = Epilogue::Kind;

namespace {

constexpr std::int64_t kN = 77, kK = 67, kMostRanks = 12;

/// Two matrices of an adapter, of ranks that are no multiple of anything, over columns that share a vector.
struct Factors {
  Matrix down[2], up[2];
  LowRankForm form;

  Factors(PackKind kind, std::int64_t first_rank, std::mt19937& random)
      : down{Matrix::random(first_rank, kK, kK, DType::f32, random), Matrix::random(5, kK, kK, DType::f32, random)},
        up{Matrix::random(kind == PackKind::gated ? kN : 30, first_rank, first_rank, DType::f32, random),
           Matrix::random(kind == PackKind::gated ? kN : 40, 5, 5, DType::f32, random)},
        form{kind, kN, kK, {}} {
    const std::int64_t second = kind == PackKind::gated ? kN : 37;  // of 77 columns 7 in between are left alone
    form.parts.push_back({0, up[0].rows, first_rank, down[0].host(), up[0].host(), 0.5f});
    form.parts.push_back({second, up[1].rows, 5, down[1].host(), up[1].host(), 2.0f});
  }

  /// scale * up (down x), of column `column` of the sums.
  double added(const Matrix& in, std::int64_t row, std::int64_t column) const {
    for (std::size_t p = 0; p < 2; ++p) {
      const std::int64_t at = column - form.parts[p].first_column;
      if (at < 0 || at >= form.parts[p].columns) continue;
      double sum = 0;
      for (std::int64_t r = 0; r < form.parts[p].rank; ++r) {
        double product = 0;
        for (std::int64_t j = 0; j < kK; ++j) product += in.get(row, j) * down[p].get(r, j);
        sum += product * up[p].get(at, r);
      }
      return sum * static_cast<double>(form.parts[p].scale);
    }
    return 0;
  }
};

/// Rows of a batch by adapter: row r has adapter of[r], -1: none.
struct Rows {
  std::vector<std::int32_t> rows, ends;
  std::vector<const LowRankWeight*> weights;

  Rows(const std::vector<int>& of, const std::vector<const LowRankWeight*>& adapters) : weights(adapters) {
    for (std::size_t a = 0; a < adapters.size(); ++a) {
      for (std::size_t r = 0; r < of.size(); ++r)
        if (of[r] == static_cast<int>(a)) rows.push_back(static_cast<std::int32_t>(r));
      ends.push_back(static_cast<std::int32_t>(rows.size()));
    }
  }
  LowRankRows view() const { return {rows, ends, weights}; }
};

void multiply(ThreadPool& pool, const Tensor& out, const Tensor& in, const Weight& weight, Epilogue to,
              const Rows& rows) {
  Matrix sums(static_cast<std::int64_t>(rows.rows.size()), kMostRanks, kMostRanks + 3, DType::f32);
  cpu::Scratch scratch;
  cpu::low_rank(pool, scratch, sums.view(), in, rows.view());
  const LowRankSums added{rows.view(), sums.view()};
  to.low_rank = &added;
  cpu::matmul(pool, scratch, out, in, weight, to);
}

}  // namespace

// rule: backend.row-stands-alone, cpu.row-stands-alone
TEST_CASE("adapters add to the rows that have them, with the bits that a row has alone") {
  std::mt19937 random(5);
  constexpr std::int64_t kRows = 90;
  ThreadPool one(1), three(3);
  for_every_kernel([&](Isa isa, DType dtype) {
    CAPTURE(cpu::name(isa));
    CAPTURE(info(dtype).name);
    for (const Kind kind : {Kind::store, Kind::accumulate, Kind::gated, Kind::activated}) {
      CAPTURE(static_cast<int>(kind));
      const PackKind pack_kind = kind == Kind::gated ? PackKind::gated : PackKind::stacked;
      const Matrix a = Matrix::random(kN, kK, kK, DType::f32, random),
                   b = Matrix::random(kN, kK, kK, DType::f32, random);
      const HostTensor parts[]{a.host(), b.host()};
      const auto weight = cpu::pack_weight(one, {parts, kind == Kind::gated ? 2u : 1u}, pack_kind, isa, dtype);
      const Factors first(pack_kind, 7, random), second(pack_kind, 2, random);
      const auto packed_first = cpu::pack_low_rank(one, first.form, isa, dtype);
      const auto packed_second = cpu::pack_low_rank(one, second.form, isa, dtype);
      CHECK(packed_first->bytes() == cpu::low_rank_bytes(first.form, isa, dtype));
      CHECK(packed_first->ranks() == 12);
      const std::vector<const LowRankWeight*> adapters{packed_first.get(), nullptr, packed_second.get()};
      std::vector<int> of;
      for (std::int64_t r = 0; r < kRows; ++r) of.push_back(r < 40 ? 0 : static_cast<int>(random() % 4) - 1);
      Matrix in = Matrix::random(kRows, kK, kK + 3, dtype, random);
      const Matrix start = Matrix::random(kRows, kN, kN, DType::f32, random);
      Matrix out = start, plain = start, alone = start;
      const Epilogue to{kind, Activation::relu, nullptr};
      multiply(three, out.view(), in.view(), *weight, to, Rows(of, adapters));
      cpu::matmul(one, plain.view(), in.view(), *weight, to);
      for (std::int64_t r = 0; r < kRows; ++r)
        multiply(one, alone.view().slice_rows(r, 1), in.view().slice_rows(r, 1), *weight, to,
                 Rows({of[static_cast<std::size_t>(r)]}, adapters));
      CHECK(std::memcmp(out.data(), alone.data(), out.size() * 4) == 0);

      // Rounding down and up to bf16 errs by 2^-9 of each product; sums have 67 and 7 terms of at most 1.
      const double tolerance = dtype == DType::bf16 ? 0.3 : 1e-4;
      int changed = 0, wrong = 0;
      for (std::int64_t r = 0; r < kRows; ++r) {
        const int adapter = of[static_cast<std::size_t>(r)];
        const Factors* const factors = adapter == 0 ? &first : adapter == 2 ? &second : nullptr;
        for (std::int64_t c = 0; c < kN; ++c) {
          const float got = out.f32[out.at(r, c)], without = plain.f32[plain.at(r, c)];
          if (factors == nullptr) {
            wrong += got != without;
            continue;
          }
          changed += got != without;
          if (kind == Kind::gated || kind == Kind::activated) {
            double gate = 0, up = 0;
            for (std::int64_t j = 0; j < kK; ++j) {
              gate += in.get(r, j) * a.get(c, j);
              up += in.get(r, j) * b.get(c, j);
            }
            gate = std::max(0.0, gate + factors->added(in, r, c));
            const double expected = kind == Kind::gated ? gate * (up + factors->added(in, r, kN + c)) : gate;
            const double bound = dtype == DType::bf16 ? 0.05 * (std::abs(expected) + 40) : 1e-3;
            wrong += std::abs(got - expected) > bound;
          } else {
            wrong += std::abs(static_cast<double>(got) - without - factors->added(in, r, c)) > tolerance;
          }
        }
      }
      CHECK(wrong == 0);
      CHECK(changed > 1000);
    }
  });
}

TEST_CASE("adapters that do not fit are refused") {
  std::mt19937 random(6);
  ThreadPool pool(1);
  const Isa isa = cpu::parse_isa("auto");
  Factors good(PackKind::stacked, 3, random);
  const auto packed = cpu::pack_low_rank(pool, good.form, isa, DType::f32);
  LowRankForm bad = good.form;
  bad.k = kK + 1;
  CHECK_THROWS_AS(cpu::pack_low_rank(pool, bad, isa, DType::f32), InvalidArgument);
  bad = good.form;
  bad.parts[1].first_column = 29;  // inside the first
  CHECK_THROWS_AS(cpu::pack_low_rank(pool, bad, isa, DType::f32), InvalidArgument);
  bad = good.form;
  bad.parts[0].rank = 0;
  CHECK_THROWS_AS(cpu::pack_low_rank(pool, bad, isa, DType::f32), InvalidArgument);

  cpu::Scratch scratch;
  Matrix in = Matrix::random(4, kK, kK, DType::f32, random), sums(2, kMostRanks, kMostRanks, DType::f32);
  const Rows rows({0, -1, 0, -1}, {packed.get()});
  LowRankRows view = rows.view();
  CHECK_NOTHROW(cpu::low_rank(pool, scratch, sums.view(), in.view(), view));
  const std::vector<std::int32_t> backwards{2, 0}, outside{0, 4};
  view.rows = backwards;
  CHECK_THROWS_AS(cpu::low_rank(pool, scratch, sums.view(), in.view(), view), InvalidArgument);
  view.rows = outside;
  CHECK_THROWS_AS(cpu::low_rank(pool, scratch, sums.view(), in.view(), view), InvalidArgument);
  CHECK_THROWS_AS(cpu::low_rank(pool, scratch, sums.view().slice_cols(0, 2), in.view(), rows.view()), InvalidArgument);
}
