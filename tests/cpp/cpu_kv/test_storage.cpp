#include <doctest/doctest.h>

#include <cstdio>
#include <string>

#include "../cpu_attention/harness.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu::test {

// rule: cpu_kv.bytes-are-arithmetic
TEST_CASE("block bytes are the arithmetic of K and V, without padding for small blocks") {
  for (Isa isa : isas()) {
    CHECK(kv_block_bytes({30, 3, 64, 16, DType::bf16}, isa) == 30u * 3 * 64 * 16 * 2 * 2);
    CHECK(kv_block_bytes({2, 4, 128, 32, DType::f32}, isa) == 2u * 4 * 128 * 32 * 2 * 4);
    CHECK(kv_block_bytes({2, 4, 72, 1, DType::bf16}, isa) == 2u * 4 * 72 * 1 * 2 * 2);
    // V is held in whole vectors of 16 lanes: 80 columns for a head size of 72.
    CHECK(kv_block_bytes({2, 4, 72, 16, DType::bf16}, isa) == 2u * 4 * (72 + 80) * 16 * 2);
    CHECK(kv_block_bytes({26, 32, 100, 16, DType::bf16}, isa) == 26u * 32 * (100 + 112) * 16 * 2);
    // bf16 keys lie in pairs of dimensions: 4 for a head size of 3. Small blocks hold them as they come.
    CHECK(kv_block_bytes({2, 4, 3, 16, DType::bf16}, isa) == 2u * 4 * (4 + 16) * 16 * 2);
    CHECK(kv_block_bytes({2, 4, 3, 16, DType::f32}, isa) == 2u * 4 * (3 + 16) * 16 * 4);
    CHECK(kv_block_bytes({2, 4, 3, 5, DType::bf16}, isa) == 2u * 4 * 3 * 5 * 2 * 2);
    // int8: a code each, and behind them, at a multiple of 4 bytes, two scales a token.
    CHECK(kv_block_bytes({30, 3, 64, 16, DType::i8}, isa) == 30u * 3 * 16 * (64 + 64 + 8));
    CHECK(kv_block_bytes({2, 4, 3, 16, DType::i8}, isa) == 2u * 4 * 16 * (4 + 16 + 8));
    CHECK(kv_block_bytes({2, 4, 3, 5, DType::i8}, isa) == 2u * 4 * (32 + 5 * 8));
  }
}

// rule: cpu_kv.outside-is-refused
TEST_CASE("shapes that cannot be served are refused") {
  const auto make = [](KvShape shape) { (void)make_kv_storage(shape, 4, Isa::portable); };
  CHECK_NOTHROW(make({1, 1, 256, 256, DType::f32}));
  CHECK_NOTHROW(make({1, 1, 1, 16, DType::bf16}));
  CHECK_THROWS_WITH_AS(make({1, 1, 257, 16, DType::f32}), "head size 257: the CPU backend serves sizes of 1 to 256",
                       Unsupported);
  CHECK_THROWS_AS(make({1, 1, 0, 16, DType::f32}), Unsupported);
  CHECK_THROWS_AS(make({1, 1, -8, 16, DType::f32}), Unsupported);
  CHECK_THROWS_AS(make({1, 1, 64, 0, DType::f32}), Unsupported);
  CHECK_THROWS_AS(make({1, 1, 64, 257, DType::f32}), Unsupported);
  CHECK_THROWS_AS(make({1, 1, 64, 16, DType::f16}), Unsupported);
  CHECK_THROWS_AS(make({0, 1, 64, 16, DType::f32}), InvalidArgument);
  CHECK_THROWS_AS(make({1, 0, 64, 16, DType::f32}), InvalidArgument);
  CHECK_THROWS_AS((void)make_kv_storage({1, 1, 64, 16, DType::f32}, 0, Isa::portable), InvalidArgument);
}

// rule: cpu_kv.bytes-are-arithmetic
TEST_CASE("more than the machine has is refused with the arithmetic") {
  const auto refusal = [](const KvShape& shape, std::uint32_t blocks) -> std::string {
    try {
      (void)make_kv_storage(shape, blocks, Isa::portable);
    } catch (const OutOfMemory& e) {
      return e.what();
    }
    return "accepted";
  };
  // More than 64 bits can count, and more than the operating system grants.
  CHECK(refusal({128, 128, 256, 256, DType::f32}, 0xfffffff0u).find("4294967280 KV blocks x 8589934592 bytes") == 0);
  CHECK(refusal({16, 16, 256, 256, DType::f32}, 1u << 30).find("= 144115188075855872 bytes: ") != std::string::npos);
}

#if defined(__linux__)
// rule: cpu_kv.unused-costs-nothing
TEST_CASE("unused blocks cost no resident memory") {
  const auto resident = [] {
    long pages = 0, total = 0;
    std::FILE* f = std::fopen("/proc/self/statm", "r");
    REQUIRE(f != nullptr);
    REQUIRE(std::fscanf(f, "%ld %ld", &total, &pages) == 2);
    std::fclose(f);
    return pages * 4096;
  };
  const long before = resident();
  const auto kv = make_kv_storage({16, 8, 128, 16, DType::bf16}, 512, Isa::portable);  // 1 GiB
  CHECK(kv->block_bytes() * kv->num_blocks() == 1u << 29);
  CHECK(resident() - before < (4 << 20));
}
#endif

}  // namespace pagedcore::cpu::test
