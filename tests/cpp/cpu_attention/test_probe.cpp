// The micro-benchmark of attention: it measures something, and refuses what it cannot measure.
#include <doctest/doctest.h>

#include <limits>

#include "pagedcore/backend.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;

TEST_CASE("attention takes longer over longer contexts, in blocks or in one piece") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto backend = make_cpu_backend({.threads = 1, .dtype = dtype});
    const auto seconds = [&](std::int32_t block_size, std::int32_t context) {
      AttentionProbe probe;
      probe.kv = {2, 2, 64, block_size, dtype};
      probe.num_heads = 4;
      probe.batch = 4;
      probe.context = context;
      probe.repeats = 5;
      return attention_seconds(*backend, probe);
    };
    const double brief = seconds(16, 16);
    CHECK(brief > 0.0);
    CHECK(seconds(16, 2048) > 2 * brief);  // 128 times the work
    CHECK(seconds(256, 2048) > 2 * brief);
  }
}

TEST_CASE("a probe of nothing is refused") {
  const auto backend = make_cpu_backend({.threads = 1});
  AttentionProbe probe;
  probe.kv = {1, 1, 64, 16, DType::bf16};
  probe.num_heads = 1;
  probe.batch = 0;
  probe.context = 5;
  CHECK_THROWS_WITH_AS(attention_seconds(*backend, probe), doctest::Contains("a count of 0"), InvalidArgument);
}

TEST_CASE("a probe larger than the machine is refused, whatever its counts multiply to") {
  const auto backend = make_cpu_backend({.threads = 1});
  constexpr std::int32_t most = std::numeric_limits<std::int32_t>::max();
  const auto of = [&](std::int32_t block_size, std::int32_t heads, std::int32_t batch, std::int32_t context) {
    return attention_seconds(*backend, {{1, 1, 64, block_size, DType::bf16}, heads, batch, context, 1});
  };
  // 65,536 sequences of 65,536 blocks are 2^32 blocks, which 32 bits count as none.
  CHECK_THROWS_WITH_AS(of(1, 1, 1 << 16, 1 << 16), doctest::Contains("there can be 2147483647 blocks"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(of(16, 1, 1 << 20, 1 << 14),
                       doctest::Contains("1048576 sequences of 16384 tokens in 1024 blocks"),
                       OutOfMemory);  // 2^30 blocks of 4 KiB
  CHECK_THROWS_AS(of(256, most, most, most), InvalidArgument);
  CHECK_THROWS_AS(of(256, most, 1 << 20, 1), OutOfMemory);  // of queries
}
