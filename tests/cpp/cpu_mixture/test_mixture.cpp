// Mixtures of experts against sums in double precision, and against themselves: alone, in batches, from block formats.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>

#include "../cpu_matmul/common.hpp"
#include "cpu/matmul/matmul.hpp"
#include "cpu/mixture/mixture.hpp"
#include "pagedcore/error.hpp"

using namespace matmul_test;
using cpu::Isa;
using cpu::ThreadPool;

namespace {

struct Shape {
  std::int64_t k, inner, n, experts, chosen;
  std::vector<std::int64_t> leaf_ends = {};
};

/// Random experts, packed for one kernel, and routes of random rows.
struct Experts {
  Shape s;
  DType dtype;
  std::vector<Matrix> gate, up, down;
  std::vector<std::unique_ptr<Weight>> packed_up, packed_down;

  Experts(ThreadPool& pool, const Shape& shape, Isa isa, DType type, std::mt19937& random) : s(shape), dtype(type) {
    for (std::int64_t e = 0; e < s.experts; ++e) {
      gate.push_back(Matrix::random(s.inner, s.k, s.k, type, random, 0.3f));
      up.push_back(Matrix::random(s.inner, s.k, s.k, type, random, 0.3f));
      down.push_back(Matrix::random(s.n, s.inner, s.inner, type, random, 0.3f));
      const HostTensor pair[]{gate.back().host(), up.back().host()}, one = down.back().host();
      packed_up.push_back(cpu::pack_weight(pool, pair, PackKind::gated, isa, type));
      packed_down.push_back(cpu::pack_weight(pool, {&one, 1}, {PackKind::stacked, s.leaf_ends}, isa, type));
    }
  }
};

struct Rows {
  Matrix in;
  std::vector<std::int32_t> experts;
  std::vector<float> shares;

  Rows(const Shape& s, std::int64_t rows, DType dtype, std::mt19937& random)
      : in(Matrix::random(rows, s.k, s.k + 3, dtype, random)) {
    std::uniform_real_distribution<float> uniform(0.05f, 1.0f);
    std::vector<std::int32_t> all(static_cast<std::size_t>(s.experts));
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::size_t e = 0; e < all.size(); ++e) all[e] = static_cast<std::int32_t>(e);
      std::shuffle(all.begin(), all.end(), random);
      std::sort(all.begin(), all.begin() + s.chosen);
      for (std::int64_t slot = 0; slot < s.chosen; ++slot) {
        experts.push_back(all[static_cast<std::size_t>(slot)]);
        shares.push_back(uniform(random));
      }
    }
  }
  Routing routing(const Shape& s, std::int64_t first, std::int64_t count) {
    return {{experts.data() + first * s.chosen, DType::i32, count, s.chosen, s.chosen},
            {shares.data() + first * s.chosen, DType::f32, count, s.chosen, s.chosen}};
  }
};

void run(ThreadPool& pool, const Experts& e, Rows& rows, Matrix& out, std::int64_t first, std::int64_t count,
         bool accumulate = false) {
  const std::int64_t slots = count * e.s.chosen;
  Matrix gathered(slots, e.s.k, e.s.k, e.dtype), inner(slots, e.s.inner, e.s.inner, e.dtype);
  cpu::Scratch scratch;
  cpu::RowLists lists;
  cpu::mixture(pool, scratch, lists, out.view().slice_rows(first, count), rows.in.view().slice_rows(first, count),
               rows.routing(e.s, first, count),
               {e.packed_up, e.packed_down, Activation::silu, accumulate, gathered.view(), inner.view()});
}

double expected(const Experts& e, const Rows& rows, std::int64_t row, std::int64_t column, double& size) {
  double sum = 0;
  for (std::int64_t slot = 0; slot < e.s.chosen; ++slot) {
    const auto at = static_cast<std::size_t>(row * e.s.chosen + slot);
    const auto expert = static_cast<std::size_t>(rows.experts[at]);
    for (std::int64_t j = 0; j < e.s.inner; ++j) {
      double g = 0, u = 0;
      for (std::int64_t i = 0; i < e.s.k; ++i) {
        g += e.gate[expert].get(j, i) * rows.in.get(row, i);
        u += e.up[expert].get(j, i) * rows.in.get(row, i);
      }
      const double term = activate(Activation::silu, g) * u * rows.shares[at] * e.down[expert].get(column, j);
      sum += term;
      size += std::abs(term);
    }
  }
  return sum;
}

const Shape kShapes[] = {{40, 70, 33, 5, 2, {32, 64, 70}}, {64, 96, 64, 16, 4, {32, 64, 96}}, {17, 9, 7, 3, 3, {}}};

}  // namespace

TEST_CASE("biases of experts, and a clamped SwiGLU, against sums in double; a row has the same bits alone") {
  std::mt19937 random(15);
  ThreadPool one(1), two(2);
  for_every_kernel([&](Isa isa, DType dtype) {
    CAPTURE(cpu::name(isa));
    for (const Shape& s : kShapes) {
      constexpr std::int64_t kRows = 19;
      const Experts e(two, s, isa, dtype, random);
      Rows rows(s, kRows, dtype, random);
      Matrix up_bias = Matrix::random(s.experts, 2 * s.inner, 2 * s.inner, DType::f32, random);
      Matrix down_bias = Matrix::random(s.experts, s.n, s.n, DType::f32, random);
      const Tensor up = up_bias.view(), down = down_bias.view();
      const SwigluParams swiglu{1.3f, 0.9f};
      const auto run_rows = [&](ThreadPool& pool, Matrix& out, std::int64_t first, std::int64_t count) {
        const std::int64_t slots = count * s.chosen;
        Matrix gathered(slots, s.k, s.k, dtype), inner(slots, s.inner, s.inner, dtype);
        cpu::Scratch scratch;
        cpu::RowLists lists;
        cpu::mixture(pool, scratch, lists, out.view().slice_rows(first, count), rows.in.view().slice_rows(first, count),
                     rows.routing(s, first, count),
                     {e.packed_up, e.packed_down, Activation::clamped_swiglu, false, gathered.view(), inner.view(),
                      swiglu, &up, &down});
      };
      Matrix out(kRows, s.n, s.n, DType::f32), alone = out;
      run_rows(two, out, 0, kRows);
      for (std::int64_t row = 0; row < kRows; ++row) run_rows(one, alone, row, 1);
      CHECK(out.f32 == alone.f32);
      const double tolerance = dtype == DType::bf16 ? 0x1p-7 : 1e-5;
      for (std::int64_t row = 0; row < kRows; ++row)
        for (std::int64_t column = 0; column < s.n; ++column) {
          double want = 0, size = 1e-9;
          for (std::int64_t slot = 0; slot < s.chosen; ++slot) {
            const auto at = static_cast<std::size_t>(row * s.chosen + slot);
            const std::int32_t expert = rows.experts[at];
            const auto x = static_cast<std::size_t>(expert);
            double sum = down_bias.get(expert, column);
            size += std::abs(sum);
            for (std::int64_t j = 0; j < s.inner; ++j) {
              double g = up_bias.get(expert, j), u = up_bias.get(expert, s.inner + j);
              for (std::int64_t i = 0; i < s.k; ++i) {
                g += e.gate[x].get(j, i) * rows.in.get(row, i);
                u += e.up[x].get(j, i) * rows.in.get(row, i);
              }
              g = std::min(g, double{swiglu.limit});
              u = std::clamp(u, -double{swiglu.limit}, double{swiglu.limit}) + 1;
              const double term = u * g / (1 + std::exp(-double{swiglu.alpha} * g)) * e.down[x].get(column, j);
              sum += term;
              size += std::abs(term);
            }
            want += sum * double{rows.shares[at]};
          }
          CHECK(std::abs(out.get(row, column) - want) <= tolerance * size);
        }
    }
  });
}

TEST_CASE("a mixture is the sum over a row's experts of their MLPs, each scaled by its share") {
  std::mt19937 random(5);
  ThreadPool pool(2);
  for_every_kernel([&](Isa isa, DType dtype) {
    CAPTURE(cpu::name(isa));
    for (const Shape& s : kShapes) {
      const Experts e(pool, s, isa, dtype, random);
      Rows rows(s, 29, dtype, random);
      Matrix out(29, s.n, s.n + 5, DType::f32);
      run(pool, e, rows, out, 0, 29);
      const Matrix once = out;
      run(pool, e, rows, out, 0, 29, true);
      // bf16: inner rows are rounded to 2^-9, sums of their terms by as much; f32 by the additions.
      const double tolerance = dtype == DType::bf16 ? 0x1p-8 : 1e-5;
      for (std::int64_t row = 0; row < 29; ++row)
        for (std::int64_t column = 0; column < s.n; ++column) {
          double size = 0;
          const double want = expected(e, rows, row, column, size);
          CHECK(std::abs(once.get(row, column) - want) <= tolerance * size);
          CHECK(out.f32[out.at(row, column)] == once.f32[out.at(row, column)] * 2);
        }
    }
  });
}

// rule: cpu.slots-then-leaves
TEST_CASE("slots are added leaf by leaf in their order, then the tree adds the leaves") {
  std::mt19937 random(6);
  ThreadPool pool(2);
  const Shape s{48, 96, 40, 6, 3, {32, 64, 96}};
  for_every_kernel([&](Isa isa, DType dtype) {
    CAPTURE(cpu::name(isa));
    cpu::Scratch memory;
    const Experts e(pool, s, isa, dtype, random);
    Rows rows(s, 1, dtype, random);
    Matrix out(1, s.n, s.n, DType::f32);
    run(pool, e, rows, out, 0, 1);
    // By products of whole weights: an expert's inner row, then each leaf of down by itself.
    std::vector<std::vector<float>> leaves(3, std::vector<float>(static_cast<std::size_t>(s.n)));
    for (std::size_t slot = 0; slot < 3; ++slot) {
      const auto expert = static_cast<std::size_t>(rows.experts[slot]);
      Matrix inner(1, s.inner, s.inner, dtype);
      const Tensor share{&rows.shares[slot], DType::f32, 1, 1, 1};
      cpu::matmul(pool, memory, inner.view(), rows.in.view(), *e.packed_up[expert],
                  {Epilogue::Kind::gated, Activation::silu, nullptr, &share});
      for (std::int64_t leaf = 0; leaf < 3; ++leaf) {
        Matrix part(s.n, 32, 32, dtype), sum(1, s.n, s.n, DType::f32);
        for (std::int64_t i = 0; i < s.n; ++i)
          for (std::int64_t j = 0; j < 32; ++j)
            part.set(i, j, static_cast<float>(e.down[expert].get(i, leaf * 32 + j)));
        const HostTensor host = part.host();
        const auto weight = cpu::pack_weight(pool, {&host, 1}, PackKind::stacked, isa, dtype);
        cpu::matmul(pool, memory, sum.view(), inner.view().slice_cols(leaf * 32, 32), *weight, {});
        for (std::size_t i = 0; i < leaves[0].size(); ++i) leaves[static_cast<std::size_t>(leaf)][i] += sum.f32[i];
      }
    }
    for (std::size_t i = 0; i < leaves[0].size(); ++i)
      CHECK(out.f32[i] == (leaves[0][i] + leaves[1][i]) + leaves[2][i]);
  });
}

// rule: backend.row-stands-alone, cpu.row-stands-alone
TEST_CASE("a row's mixture has the same bits alone, in any batch, on any number of threads") {
  std::mt19937 random(7);
  constexpr std::int64_t kRows = 150;
  ThreadPool one(1), two(2), five(5);
  for_every_kernel([&](Isa isa, DType dtype) {
    CAPTURE(cpu::name(isa));
    for (const Shape& s : kShapes) {
      const Experts e(two, s, isa, dtype, random);
      Rows rows(s, kRows, dtype, random);
      Matrix alone(kRows, s.n, s.n, DType::f32);
      for (std::int64_t row = 0; row < kRows; ++row) run(one, e, rows, alone, row, 1);
      for (ThreadPool* pool : {&one, &two, &five})
        for (const std::int64_t m : {2, 7, 16, 33, 64, 150}) {
          const std::int64_t first = static_cast<std::int64_t>(random() % static_cast<unsigned>(kRows - m + 1));
          Matrix batch(kRows, s.n, s.n, DType::f32);
          run(*pool, e, rows, batch, first, m);
          CAPTURE(m);
          CHECK(std::memcmp(batch.view().slice_rows(first, m).data, alone.view().slice_rows(first, m).data,
                            static_cast<std::size_t>(m * s.n) * 4) == 0);
        }
    }
  });
}

TEST_CASE("more rows than one block of sums holds have the bits of each alone") {
  std::mt19937 random(8);
  ThreadPool two(2);
  const Shape s{8, 512, 8, 4, 2, [] {
                  std::vector<std::int64_t> ends;
                  for (int i = 1; i <= 16; ++i) ends.push_back(32 * i);
                  return ends;
                }()};
  const Isa isa = cpu::parse_isa(cpu_isas().back());
  const Experts e(two, s, isa, DType::f32, random);
  Rows rows(s, 1100, DType::f32, random);
  Matrix batch(1100, s.n, s.n, DType::f32), alone = batch;
  run(two, e, rows, batch, 0, 1100);
  for (const std::int64_t row : {0, 1, 255, 256, 257, 511, 512, 1023, 1024, 1099}) {
    run(two, e, rows, alone, row, 1);
    CHECK(std::memcmp(batch.view().slice_rows(row, 1).data, alone.view().slice_rows(row, 1).data,
                      static_cast<std::size_t>(s.n) * 4) == 0);
  }
}

TEST_CASE("experts in a block format have the bits of the same numbers, dense") {
  std::mt19937 random(9);
  ThreadPool two(2);
  const std::int64_t k = 64, inner = 96, n = 40, experts = 3;
  const Shape s{k, inner, n, experts, 2, {32, 64, 96}};
  const auto q8 = [&](std::int64_t rows, std::int64_t cols) {
    std::vector<std::byte> bytes(bytes_of(DType::q8_0, rows * cols));
    for (std::size_t at = 0; at < bytes.size(); at += 34) {
      const std::uint16_t scale = static_cast<std::uint16_t>(0x1c00 + random() % 256);  // f16, about 2^-8
      std::memcpy(&bytes[at], &scale, 2);
      for (std::size_t i = 2; i < 34; ++i) bytes[at + i] = static_cast<std::byte>(random());
    }
    return bytes;
  };
  for_every_kernel([&](Isa isa, DType dtype) {
    CAPTURE(cpu::name(isa));
    std::vector<std::unique_ptr<Weight>> up[2], down[2];
    for (std::int64_t e = 0; e < experts; ++e) {
      const auto g = q8(inner, k), u = q8(inner, k), d = q8(n, inner);
      const HostTensor pair[]{{DType::q8_0, {inner, k}, 2, g}, {DType::q8_0, {inner, k}, 2, u}};
      const HostTensor one{DType::q8_0, {n, inner}, 2, d};
      for (const bool native : {false, true}) {
        up[native].push_back(cpu::pack_weight(two, pair, PackKind::gated, isa, dtype, native));
        down[native].push_back(cpu::pack_weight(two, {&one, 1}, {PackKind::stacked, s.leaf_ends}, isa, dtype, native));
      }
    }
    CHECK(down[1][0]->size().native > 0);
    for (const std::int64_t m : {1, 5, 70}) {
      Rows rows(s, m, dtype, random);
      Matrix gathered(m * 2, k, k, dtype), between(m * 2, inner, inner, dtype);
      Matrix found[2]{{m, n, n, DType::f32}, {m, n, n, DType::f32}};
      cpu::Scratch scratch;
      cpu::RowLists lists;
      for (const bool native : {false, true})
        cpu::mixture(two, scratch, lists, found[native].view(), rows.in.view(), rows.routing(s, 0, m),
                     {up[native], down[native], Activation::silu, false, gathered.view(), between.view()});
      CHECK(found[0].f32 == found[1].f32);
    }
  });
}

TEST_CASE("what does not fit is refused by name, and nothing is written") {
  std::mt19937 random(10);
  ThreadPool pool(1);
  const Shape s = kShapes[0];
  Experts e(pool, s, Isa::portable, DType::f32, random);
  Rows rows(s, 4, DType::f32, random);
  Matrix out(4, s.n, s.n, DType::f32);
  rows.experts[3] = rows.experts[2];
  CHECK_THROWS_AS(run(pool, e, rows, out, 0, 4), InvalidArgument);
  rows.experts[3] = 5;
  CHECK_THROWS_WITH_AS(run(pool, e, rows, out, 0, 4),
                       "mixture: slot 1 of row 1 names expert 5 of 5; the slots of a row ascend", InvalidArgument);
  rows.experts[3] = 4;
  rows.experts[2] = -1;
  CHECK_THROWS_AS(run(pool, e, rows, out, 0, 4), InvalidArgument);
  rows.experts[2] = 0;
  CHECK(out.f32[0] != out.f32[0]);  // still the NaN it began with
  std::swap(e.packed_down[0], e.packed_up[0]);
  CHECK_THROWS_AS(run(pool, e, rows, out, 0, 4), InvalidArgument);
  std::swap(e.packed_down[0], e.packed_up[0]);
  e.packed_down.pop_back();
  CHECK_THROWS_AS(run(pool, e, rows, out, 0, 4), InvalidArgument);
}
