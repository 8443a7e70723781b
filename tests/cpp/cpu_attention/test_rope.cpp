// Rotary embedding against double, and what reaches the cache.
#include <doctest/doctest.h>

#include "harness.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu::test {
namespace {

struct Rope {
  std::vector<float> inv_freq;
  Tensor tensor;
  Rope(int n, double theta) {
    for (int i = 0; i < n; ++i)
      inv_freq.push_back(static_cast<float>(std::pow(theta, -double{static_cast<double>(i)} / n)));
    tensor = {inv_freq.data(), DType::f32, 1, n, n};
  }
};

double rotated(const float* head, int i, int n, const Rope& rope, int position, double magnitude) {
  if (i >= 2 * n) return head[i];
  const int pair = i % n;
  const double angle = static_cast<float>(position) * rope.inv_freq[static_cast<std::size_t>(pair)];  // rounded to f32
  const double c = std::cos(angle) * magnitude, s = std::sin(angle) * magnitude;
  return i < n ? head[i] * c - head[i + n] * s : head[i] * c + head[i - n] * s;
}

}  // namespace

TEST_CASE("queries are rotated by position, partially, scaled by the magnitude") {
  for (Isa isa : isas())
    for (DType type : {DType::f32, DType::bf16})
      for (int frequencies : {32, 16, 5}) {
        Setup s{.isa = isa, .compute = type, .kv = type, .head_dim = 64, .kv_heads = 1, .heads_per_kv_head = 2};
        World world(s, {3000});
        ThreadPool pool(2);
        const Rope rope(frequencies, 10000.0), other(frequencies, 500.0);
        for (Part part : {Part{0, 0, 100}, Part{0, 2900, 100}, Part{0, 77, 1}}) {
          const auto p = world.prepare({part});
          const float* in = &world.qkv[0][static_cast<std::size_t>(part.first) * world.cols()];
          std::vector<float> q(static_cast<std::size_t>(part.rows) * 128);
          const Tensor q_t{q.data(), type, part.rows, 128, 128};
          const Tensor in_t{const_cast<float*>(in), DType::f32, part.rows, 256, 256};
          // Two ropes in one step, as in models whose local and global layers differ.
          rope_and_cache(pool, q_t, in_t, *world.storage, 0, *p.batch, {2, 1, 64}, {&other.tensor, 1.0f});
          rope_and_cache(pool, q_t, in_t, *world.storage, 0, *p.batch, {2, 1, 64}, {&rope.tensor, 1.25f});
          double worst = 0;
          for (int r = 0; r < part.rows; ++r)
            for (int i = 0; i < 128; ++i) {
              const std::size_t at = static_cast<std::size_t>(r) * 128 + static_cast<std::size_t>(i);
              std::uint16_t half;
              std::memcpy(&half, reinterpret_cast<const char*>(q.data()) + at * 2, 2);
              const double got = type == DType::f32 ? double{q[at]} : double{from_bf16(half)};
              const double want = rotated(in + r * 256 + i / 64 * 64, i % 64, frequencies, rope, part.first + r, 1.25);
              worst = std::max(worst, std::abs(got - want) / (std::abs(want) + 1.0));
            }
          CHECK(worst <= (type == DType::f32 ? 1e-6 : 4e-3));
        }
      }
}

TEST_CASE("scores depend on the distance of positions only") {
  // q and k of all positions are alike, so after rotation q.k depends on the distance; uniform V makes the output
  // plain.
  Setup s{.isa = best(), .head_dim = 32, .kv_heads = 1, .heads_per_kv_head = 1};
  World world(s, {300});
  for (std::size_t p = 1; p < 300; ++p)
    for (std::size_t i = 0; i < 64; ++i) world.qkv[0][p * 96 + i] = world.qkv[0][i];
  ThreadPool pool(1);
  const Rope rope(16, 10000.0);
  const auto p = world.prepare({{0, 0, 300}});
  std::vector<float> q(300 * 32), out(300 * 32);
  const Tensor q_t{q.data(), DType::f32, 300, 32, 32}, out_t{out.data(), DType::f32, 300, 32, 32};
  const Tensor in{world.qkv[0].data(), DType::f32, 300, 96, 96};
  rope_and_cache(pool, q_t, in, *world.storage, 0, *p.batch, {1, 1, 32}, {&rope.tensor, 1.0f});
  attention(pool, out_t, q_t, *world.storage, 0, *p.batch, {{1, 1, 32}, 0.3f, 0.0f, 0});
  std::vector<double> score(300);  // by distance
  for (int d = 0; d < 300; ++d) {
    double dot = 0;
    for (int i = 0; i < 32; ++i)
      dot += rotated(&world.qkv[0][0], i, 16, rope, d, 1.0) * double{world.qkv[0][32 + static_cast<std::size_t>(i)]};
    score[static_cast<std::size_t>(d)] = dot * 0.3;
  }
  for (int row : {0, 17, 299}) {
    double sum = 0;
    std::vector<double> want(32, 0.0);
    for (int t = 0; t <= row; ++t) {
      const double e = std::exp(score[static_cast<std::size_t>(row - t)]);
      sum += e;
      for (std::size_t i = 0; i < 32; ++i)
        want[i] += e * double{world.qkv[0][static_cast<std::size_t>(t) * 96 + 64 + i]};
    }
    for (std::size_t i = 0; i < 32; ++i)
      CHECK(out[static_cast<std::size_t>(row) * 32 + i] == doctest::Approx(want[i] / sum).epsilon(1e-4));
  }
}

TEST_CASE("mismatched rotary parameters are refused") {
  ThreadPool pool(1);
  World world({.head_dim = 16, .kv_heads = 1, .heads_per_kv_head = 1}, {4});
  const auto p = world.prepare({{0, 0, 4}});
  std::vector<float> q(4 * 16);
  const Tensor q_t{q.data(), DType::f32, 4, 16, 16}, in{world.qkv[0].data(), DType::f32, 4, 48, 48};
  const Rope rope(9, 100.0);
  CHECK_THROWS_AS(rope_and_cache(pool, q_t, in, *world.storage, 0, *p.batch, {1, 1, 16}, {&rope.tensor, 1.0f}),
                  InvalidArgument);
  CHECK_THROWS_AS(rope_and_cache(pool, q_t, in.head(3), *world.storage, 0, *p.batch, {1, 1, 16}, {}), InvalidArgument);
}

}  // namespace pagedcore::cpu::test
