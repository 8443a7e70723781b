// The micro-benchmark of attention: it measures something, and refuses what it cannot measure.
#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "backend/forwarding_backend.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;

namespace {

/// What a probe has a backend do.
class Counting : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  std::unique_ptr<Batch> prepare(const BatchView& view, std::int32_t block_size) override {
    for (const TokenRange& range : view.ranges) contexts.push_back(range.first_position + range.num_rows);
    for (const BlockId block : view.block_tables) blocks.insert(raw(block));
    return ForwardingBackend::prepare(view, block_size);
  }
  void attention(const Tensor& out, const Tensor& q, const KvStorage& kv, std::int32_t layer, const Batch& batch,
                 const AttentionParams& p) override {
    ++layers[layer];
    ForwardingBackend::attention(out, q, kv, layer, batch, p);
  }

  std::vector<std::int32_t> contexts;
  std::set<std::uint32_t> blocks;
  std::map<std::int32_t, int> layers;
};

}  // namespace

TEST_CASE("what is measured is attention of the rows, contexts, blocks and layers that were asked for") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto cpu = make_cpu_backend({.threads = 1, .dtype = dtype});
    for (const std::int32_t block_size : {16, 256}) {
      for (const std::int32_t context : {16, 1000}) {
        Counting backend(*cpu);
        AttentionProbe probe;
        probe.kv = {2, 2, 64, block_size, dtype};
        probe.num_heads = 4;
        probe.batch = 3;
        probe.context = context;
        probe.repeats = 5;
        CHECK(attention_seconds(backend, probe) > 0.0);
        CHECK(backend.contexts == std::vector<std::int32_t>(3, context));
        CHECK(backend.blocks.size() == 3u * static_cast<std::size_t>((context + block_size - 1) / block_size));
        CHECK(backend.layers == std::map<std::int32_t, int>{{0, 6}, {1, 6}});  // one more, which warms up
      }
    }
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
