#include <doctest/doctest.h>

#include "../cpu_attention/harness.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu::test {

// rule: cpu_kv.copy-serves-every-layer
TEST_CASE("a copied block serves the tokens it was filled with, in every layer") {
  for (Types t : kTypes)
    for (int block_size : {1, 4, 5, 16, 24, 64})
      for (int tokens : {1, block_size / 2, block_size - 1, block_size}) {
        if (tokens < 1) continue;
        const int head_dim = block_size % 3 == 1 ? 24 : 5;
        CAPTURE(block_size);
        CAPTURE(tokens);
        Setup s{.isa = best(),
                .compute = t.compute,
                .kv = t.kv,
                .head_dim = head_dim,
                .kv_heads = 2,
                .heads_per_kv_head = 1};
        s.block_size = block_size;
        s.layers = 3;
        ThreadPool pool(2);
        World world(s, {2 * block_size, 2 * block_size});
        const int length = block_size + tokens;
        std::vector<std::vector<float>> expected;
        for (int layer = 0; layer < 3; ++layer) {
          // Each layer has its own content.
          for (float& x : world.qkv[0]) x *= -0.5f;
          const std::vector<float> out = world.step(pool, {{0, 0, length}}, layer);
          expected.emplace_back(out.end() - static_cast<std::ptrdiff_t>(world.out_cols()), out.end());
        }
        const std::vector<BlockCopy> copies{
            {BlockId{world.tables[0][1]}, BlockId{world.tables[1][0]}, static_cast<std::uint32_t>(tokens)},
            {BlockId{world.tables[0][0]}, BlockId{world.tables[1][1]}, static_cast<std::uint32_t>(block_size)}};
        copy_blocks(pool, *world.storage, copies);
        for (std::uint32_t b : world.tables[0])
          std::memset(world.paged().part(b, 0, 0), 0xff, world.storage->block_bytes());
        world.tables[0] = {world.tables[1][1], world.tables[1][0]};
        // The last row again, from the copies: its own K and V are rewritten, everything before comes from the copy.
        for (int layer = 2; layer >= 0; --layer) {
          const std::vector<float> out = world.step(pool, {{0, length - 1, 1}}, layer);
          CHECK(std::memcmp(out.data(), expected[static_cast<std::size_t>(layer)].data(), out.size() * 4) == 0);
          for (float& x : world.qkv[0]) x *= -2.0f;
        }
      }
}

// rule: backend.throw-enqueues-nothing, cpu_kv.outside-is-refused
TEST_CASE("copies outside the storage are refused and change nothing") {
  ThreadPool pool(1);
  World world({.head_dim = 16}, {20});
  const std::uint32_t n = world.storage->num_blocks();
  const auto copy = [&](std::uint32_t src, std::uint32_t dst, std::uint32_t tokens) {
    const BlockCopy c{BlockId{src}, BlockId{dst}, tokens};
    copy_blocks(pool, *world.storage, {&c, 1});
  };
  CHECK_THROWS_AS(copy(n, 0, 1), InvalidArgument);
  CHECK_THROWS_AS(copy(0, n, 1), InvalidArgument);
  CHECK_THROWS_AS(copy(0, 1, 17), InvalidArgument);
  CHECK_NOTHROW(copy(0, 1, 16));
  CHECK_NOTHROW(copy_blocks(pool, *world.storage, {}));
}

// rule: backend.throw-enqueues-nothing, cpu_kv.outside-is-refused
TEST_CASE("swaps outside the storage, or without a place for each block, are refused and change nothing") {
  ThreadPool pool(2);
  World world({.head_dim = 16}, {20});
  const std::size_t bytes = world.storage->block_bytes();
  const std::uint32_t n = world.storage->num_blocks();
  std::vector<std::byte> host(2 * bytes, std::byte{1});
  const std::vector<std::byte*> places{host.data(), host.data() + bytes};
  const std::vector<BlockId> outside{BlockId{0}, BlockId{n}}, last{BlockId{n - 1}};
  CHECK_THROWS_WITH_AS(swap_out(pool, *world.storage, outside, places), doctest::Contains("swap of block"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(swap_out(pool, *world.storage, last, places), "a swap of 1 blocks has 2 places in host memory",
                       InvalidArgument);
  CHECK(host == std::vector<std::byte>(2 * bytes, std::byte{1}));
  swap_out(pool, *world.storage, last, std::span(places).first(1));
  CHECK(std::memcmp(host.data(), world.paged().part(n - 1, 0, 0), bytes) == 0);
}

}  // namespace pagedcore::cpu::test
