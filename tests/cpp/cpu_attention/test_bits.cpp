// Same request, same bits: a row in prefill, in chunks, in decode, among strangers, on any number of threads.
#include <doctest/doctest.h>

#include "harness.hpp"

namespace pagedcore::cpu::test {
namespace {

using Rows = std::vector<float>;

// Sequence 0 in consecutive chunks of `size` tokens.
Rows chunked(World& world, ThreadPool& pool, int length, int size) {
  world.poison();
  Rows all;
  for (int first = 0; first < length; first += size) {
    const Rows out = world.step(pool, {{0, first, std::min(size, length - first)}});
    all.insert(all.end(), out.begin(), out.end());
  }
  return all;
}

void check_same(const Rows& a, const Rows& b) {
  REQUIRE(a.size() == b.size());
  CHECK(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

void check(const Setup& s) {
  CAPTURE(name(s.isa));
  CAPTURE(info(s.compute).name);
  CAPTURE(info(s.kv).name);
  CAPTURE(s.head_dim);
  CAPTURE(s.heads_per_kv_head);
  CAPTURE(s.block_size);
  CAPTURE(s.window);
  constexpr int kLength = 1041;  // three segments, an odd tail
  World world(s, {kLength, 5, 700, 64});
  ThreadPool one(1), two(2), three(3);
  const Rows whole = chunked(world, one, kLength, kLength);
  check_same(whole, chunked(world, two, kLength, kLength));
  check_same(whole, chunked(world, three, kLength, kLength));
  for (int size : {7, 16, 100, 513}) {
    CAPTURE(size);
    check_same(whole, chunked(world, two, kLength, size));
  }
  // Decode: one row at a time, sampled; the context is in place from the last run.
  for (ThreadPool* pool : {&one, &two, &three}) {
    for (int p : {0, 1, 15, 16, 17, 63, 64, 511, 512, 513, 800, 1023, 1024, 1040}) {
      CAPTURE(p);
      const auto row = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(p) * world.out_cols());
      const Rows expected(whole.begin() + row, whole.begin() + row + static_cast<std::ptrdiff_t>(world.out_cols()));
      check_same(expected, world.step(*pool, {{0, p, 1}}));
    }
  }
  // A mixed batch: strangers' decode and prefill around a chunk of ours.
  world.poison();
  (void)world.step(one, {{0, 0, 600}, {2, 0, 699}});
  const Rows mixed = world.step(two, {{1, 0, 5}, {0, 600, 441}, {2, 699, 1}, {3, 0, 64}});
  const Rows tail(whole.begin() + static_cast<std::ptrdiff_t>(600 * world.out_cols()), whole.end());
  const auto first = mixed.begin() + static_cast<std::ptrdiff_t>(5 * world.out_cols());
  check_same(tail, Rows(first, first + static_cast<std::ptrdiff_t>(tail.size())));
}

}  // namespace

// rule: backend.row-stands-alone, cpu.row-stands-alone, cpu_attention.row-stands-alone
TEST_CASE("a row has the same bits however its sequence is cut and batched") {
  for (Isa isa : isas())
    for (Types t : kTypes)
      for (int heads : {1, 3, 5}) {
        Setup s{
            .isa = isa, .compute = t.compute, .kv = t.kv, .head_dim = 32, .kv_heads = 1, .heads_per_kv_head = heads};
        check(s);
      }
}

TEST_CASE("the same with windows, sinks, soft caps, other head and block sizes") {
  for (Isa isa : isas())
    for (Types t : kTypes) {
      Setup s{.isa = isa, .compute = t.compute, .kv = t.kv, .head_dim = 16, .kv_heads = 2, .heads_per_kv_head = 2};
      s.window = 150;
      check(s);
      s.sinks = {0.5f, -2.0f, 3.0f, 0.0f};
      check(s);
      s.sinks.clear();
      s.window = 0;
      s.softcap = 3.0f;
      s.block_size = 32;
      check(s);
      s.softcap = 0;
      s.block_size = 8;
      check(s);
      s.kv_heads = 1;
      s.block_size = 16;
      for (int head_dim : {3, 20, 40, 47}) {
        s.head_dim = head_dim;
        check(s);
      }
    }
}

// rule: cpu_attention.row-stands-alone
TEST_CASE("block size does not change a row's bits") {
  for (Isa isa : isas())
    for (Types t : kTypes)
      for (int head_dim : {5, 12, 24, 31}) {
        ThreadPool pool(2);
        Rows first;
        for (int block_size : {1, 3, 16, 64, 256}) {
          Setup s{.isa = isa,
                  .compute = t.compute,
                  .kv = t.kv,
                  .head_dim = head_dim,
                  .kv_heads = 1,
                  .heads_per_kv_head = 2};
          World world(s, {600});
          const std::vector<float> data = world.qkv[0];
          s.block_size = block_size;
          World other(s, {600});
          other.qkv[0] = data;
          const Rows out = chunked(other, pool, 600, 600);
          if (first.empty()) first = out;
          check_same(first, out);
        }
      }
}

}  // namespace pagedcore::cpu::test
