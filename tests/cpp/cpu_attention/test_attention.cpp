// Attention against dense attention in double, with NaN in every slot that no row may see.
#include <doctest/doctest.h>

#include "harness.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu::test {
namespace {

// Prefills all but the last token of each sequence, then decodes the last; checks `rows` rows of each.
void check(const Setup& s, const std::vector<int>& lengths, ThreadPool& pool) {
  CAPTURE(name(s.isa));
  CAPTURE(info(s.kv).name);
  CAPTURE(s.head_dim);
  CAPTURE(s.heads_per_kv_head);
  CAPTURE(s.block_size);
  CAPTURE(s.window);
  World world(s, lengths);
  std::vector<Part> prefill, decode;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] > 1) prefill.push_back({static_cast<int>(i), 0, lengths[i] - 1});
    decode.push_back({static_cast<int>(i), lengths[i] - 1, 1});
  }
  if (!prefill.empty()) {
    const std::vector<float> out = world.step(pool, prefill);
    std::size_t row = 0;
    for (const Part& p : prefill) {
      for (int r : {0, p.rows / 3, p.rows - 1}) {
        CAPTURE(r);
        CHECK(world.error(&out[(row + static_cast<std::size_t>(r)) * world.out_cols()], p.sequence, r) <=
              world.tolerance());
      }
      row += static_cast<std::size_t>(p.rows);
    }
  }
  const std::vector<float> out = world.step(pool, decode);
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    CAPTURE(lengths[i]);
    CHECK(world.error(&out[i * world.out_cols()], static_cast<int>(i), lengths[i] - 1) <= world.tolerance());
  }
}

}  // namespace

TEST_CASE("every head size and number of query heads per KV head on every instruction set") {
  ThreadPool pool(2);
  for (Isa isa : isas())
    for (Types t : kTypes)
      for (int head_dim : {1,  2,  3,  4,  5,  7,  8,   12,  15,  16,  17,  20,  24,  31,  63,
                           64, 72, 80, 96, 97, 99, 100, 112, 127, 128, 129, 192, 250, 255, 256})
        for (int heads : {1, 3, 4, 7, 8}) {
          Setup s{.isa = isa,
                  .compute = t.compute,
                  .kv = t.kv,
                  .head_dim = head_dim,
                  .kv_heads = 1,
                  .heads_per_kv_head = heads};
          check(s, {33, 70}, pool);
        }
}

TEST_CASE("more query heads per KV head than rows in a tile") {
  ThreadPool pool(1);
  for (Isa isa : isas()) check({.isa = isa, .head_dim = 32, .kv_heads = 1, .heads_per_kv_head = 71}, {40}, pool);
}

// rule: cpu_attention.unseen-may-be-anything
TEST_CASE("every block size at the edges of blocks, pieces and segments") {
  ThreadPool pool(2);
  for (Isa isa : isas())
    for (Types t : kTypes)
      for (int block_size : {1, 2, 4, 8, 16, 24, 32, 64, 100, 128, 256}) {
        Setup s{.isa = isa, .compute = t.compute, .kv = t.kv, .head_dim = 16, .kv_heads = 2, .heads_per_kv_head = 2};
        s.block_size = block_size;
        for (int head_dim : {3, 9, 20}) {
          s.head_dim = head_dim;
          check(s, {block_size, block_size + 1, 17, 65}, pool);
        }
        s.head_dim = 16;
        check(s, {1, 2, block_size, block_size + 1, 15, 16, 17, 63, 64, 65, 511, 512, 513, 1100}, pool);
        if (block_size > 1) check(s, {block_size - 1}, pool);
      }
}

TEST_CASE("element types of queries and storage may differ") {
  ThreadPool pool(1);
  for (Isa isa : isas()) {
    for (int head_dim : {1, 15, 20, 33, 64}) {
      check({.isa = isa, .compute = DType::f32, .kv = DType::bf16, .head_dim = head_dim}, {100}, pool);
      check({.isa = isa, .compute = DType::bf16, .kv = DType::f32, .head_dim = head_dim}, {100}, pool);
    }
  }
}

TEST_CASE("sliding window and soft cap") {
  ThreadPool pool(2);
  for (Isa isa : isas())
    for (Types t : kTypes)
      for (int block_size : {8, 16, 32})
        for (int window : {1, 5, 16, 64, 100, 600}) {
          Setup s{.isa = isa, .compute = t.compute, .kv = t.kv, .head_dim = 32, .kv_heads = 1, .heads_per_kv_head = 2};
          s.block_size = block_size;
          s.window = window;
          check(s, {40, 700}, pool);
          s.softcap = 2.0f;
          check(s, {129}, pool);
        }
}

// rule: cpu_attention.row-stands-alone
TEST_CASE("sinks take their share of the softmax, whatever the window and the segments of the context") {
  ThreadPool pool(2);
  for (Isa isa : isas())
    for (Types t : kTypes)
      for (int window : {0, 1, 70, 600}) {
        Setup s{.isa = isa, .compute = t.compute, .kv = t.kv, .head_dim = 32, .kv_heads = 2, .heads_per_kv_head = 3};
        s.window = window;
        s.sinks = {0.5f, -3.0f, 40.0f, 2.0f, -200.0f, 0.0f};
        check(s, {1, 40, 513, 1100}, pool);
        s.softcap = 2.0f;
        check(s, {129}, pool);
      }
}

TEST_CASE("a sink of minus infinity is none, to the bit; a sink that is NaN makes its heads NaN") {
  ThreadPool pool(1);
  for (Isa isa : isas()) {
    Setup s{.isa = isa, .head_dim = 16, .kv_heads = 1, .heads_per_kv_head = 2};
    World plain(s, {70});
    s.sinks = {-HUGE_VALF, -HUGE_VALF};
    World none(s, {70});
    const std::vector<float> expected = plain.step(pool, {{0, 0, 70}});
    CHECK(none.step(pool, {{0, 0, 70}}) == expected);
    s.sinks = {std::nanf(""), 0.0f};
    World nan(s, {70});
    const std::vector<float> out = nan.step(pool, {{0, 0, 70}});
    CHECK(std::isnan(out[0]));
    CHECK(std::isfinite(out[16]));
  }
}

// rule: cpu_attention.before-the-window-is-not-read
TEST_CASE("blocks wholly before the window are never read") {
  ThreadPool pool(1);
  for (Isa isa : isas())
    for (int block_size : {4, 16, 32}) {
      Setup s{.isa = isa, .head_dim = 16, .kv_heads = 1, .heads_per_kv_head = 2};
      s.block_size = block_size;
      s.window = 70;
      World world(s, {300});
      (void)world.step(pool, {{0, 0, 299}});
      for (int b = 0; b < (300 - 70) / block_size; ++b) {  // freed: another sequence's by now, or nobody's
        std::memset(world.paged().part(world.tables[0][static_cast<std::size_t>(b)], 0, 0), 0xff,
                    world.storage->block_bytes());
        if (b > 0) world.tables[0][static_cast<std::size_t>(b)] = raw(kNoBlock);
      }
      const std::vector<float> out = world.step(pool, {{0, 299, 1}});
      CHECK(world.error(out.data(), 0, 299) <= world.tolerance());
      world.setup.window = 0;
      CHECK_THROWS_AS(world.step(pool, {{0, 299, 1}}), InvalidArgument);
    }
}

TEST_CASE("large scores neither overflow nor vanish") {
  ThreadPool pool(1);
  for (Isa isa : isas()) {
    Setup s{.isa = isa, .head_dim = 16, .kv_heads = 1, .heads_per_kv_head = 1};
    World world(s, {200});
    for (float& x : world.qkv[0]) x *= 40.0f;
    const std::vector<float> out = world.step(pool, {{0, 0, 200}});
    // Scores of a few thousand: their rounding alone is 1e-4.
    for (int r : {0, 57, 199}) CHECK(world.error(&out[static_cast<std::size_t>(r) * 16], 0, r) <= 2e-3);
  }
}

// rule: cpu_attention.nan-stays-with-its-readers
TEST_CASE("a NaN in the context reaches the rows that see it and no others") {
  ThreadPool pool(1);
  for (Isa isa : isas())
    for (Types t : kTypes)
      for (int heads : {1, 3, 17})
        for (int block_size : {8, 16})
          for (int element : {0, 1})  // of K, of V
            for (int window : {0, 9}) {
              CAPTURE(name(isa));
              CAPTURE(element);
              Setup s{.isa = isa,
                      .compute = t.compute,
                      .kv = t.kv,
                      .head_dim = 16,
                      .kv_heads = 1,
                      .heads_per_kv_head = heads};
              s.block_size = block_size;
              s.window = window;
              World world(s, {100, 30});
              (void)world.step(pool, {{1, 0, 30}});
              const std::vector<float> clean = world.step(pool, {{1, 0, 30}});
              world.qkv[1][5 * world.cols() + world.out_cols() + static_cast<std::size_t>(element) * 16] =
                  element == 0 ? std::nanf("") : HUGE_VALF;
              const std::vector<float> out = world.step(pool, {{1, 0, 30}, {0, 0, 100}});
              for (std::size_t r = 0; r < 130; ++r) {
                const bool sees = r >= 5 && r < (window > 0 ? 14 : 30);
                const float* row = &out[r * world.out_cols()];
                const bool finite = std::isfinite(row[0]);
                CHECK(finite == !sees);
                if (r < 30 && !sees) CHECK(std::memcmp(row, &clean[r * world.out_cols()], world.out_cols() * 4) == 0);
              }
            }
}

// rule: cpu_attention.mismatch-is-refused
TEST_CASE("mismatched calls are refused") {
  ThreadPool pool(1);
  World world({.head_dim = 16}, {20});
  const auto p = world.prepare({{0, 0, 20}});
  std::vector<float> x(20 * world.cols());
  const Tensor q{x.data(), DType::f32, 20, 96, 96};
  const AttentionParams good{{6, 2, 16}, 1.0f, 0.0f, 0};
  CHECK_THROWS_AS(attention(pool, q, q, *world.storage, 1, *p.batch, good), InvalidArgument);
  CHECK_THROWS_AS(attention(pool, q.head(19), q, *world.storage, 0, *p.batch, good), InvalidArgument);
  AttentionParams bad = good;
  bad.shape.num_heads = 5;
  CHECK_THROWS_AS(attention(pool, q, q, *world.storage, 0, *p.batch, bad), InvalidArgument);
  bad = good;
  bad.shape.head_dim = 32;
  CHECK_THROWS_AS(attention(pool, q, q, *world.storage, 0, *p.batch, bad), InvalidArgument);
  bad = good;
  const Tensor short_sinks{x.data(), DType::f32, 1, 5, 5};
  bad.sinks = &short_sinks;
  CHECK_THROWS_WITH_AS(attention(pool, q, q, *world.storage, 0, *p.batch, bad), doctest::Contains("sinks"),
                       InvalidArgument);
  bad = good;
  bad.window = -1;
  CHECK_THROWS_AS(attention(pool, q, q, *world.storage, 0, *p.batch, bad), InvalidArgument);
}

}  // namespace pagedcore::cpu::test
