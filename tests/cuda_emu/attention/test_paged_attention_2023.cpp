#include <doctest/doctest.h>

#include <cmath>

#include "attention/paged_world.hpp"
#include "kernels/paged_attention_2023.hpp"

using namespace cuda_test;

namespace {

/// The same sequences for both kernels: the paged world's cache in the layout of 2023.
struct Cache2023 {
  std::vector<std::uint16_t> k, v;

  Cache2023(const PagedWorld& world, int sequence, int length, const std::vector<std::uint32_t>& blocks) {
    const WorldShape& s = world.shape();
    const auto size = static_cast<std::size_t>(s.num_blocks * s.num_kv_heads * s.head_dim * s.block_size);
    k.assign(size, 0xffff), v.assign(size, 0xffff);
    for (int p = 0; p < length; ++p) {
      const int block = static_cast<int>(blocks[static_cast<std::size_t>(p / s.block_size)]), slot = p % s.block_size;
      for (int h = 0; h < s.num_kv_heads; ++h) {
        for (int d = 0; d < s.head_dim; ++d) {
          const int base = (block * s.num_kv_heads + h) * s.head_dim * s.block_size;
          k[static_cast<std::size_t>(base + (d / 8 * s.block_size + slot) * 8 + d % 8)] =
              to_bits(s.compute, static_cast<float>(world.stored(sequence, p, h, d, false)));
          v[static_cast<std::size_t>(base + d * s.block_size + slot)] =
              to_bits(s.compute, static_cast<float>(world.stored(sequence, p, h, d, true)));
        }
      }
    }
  }
};

}  // namespace

TEST_CASE("the kernel of 2023 against double, and against the kernel that replaced it") {
  for (const ComputeType compute : {ComputeType::f16, ComputeType::bf16}) {
    for (const int block_size : {8, 16, 32}) {
      for (const int head_dim : {32, 64, 80, 96, 112, 128, 256}) {
        WorldShape shape;
        shape.compute = compute, shape.kv = compute == ComputeType::f16 ? KvType::f16 : KvType::bf16;
        shape.head_dim = head_dim, shape.block_size = block_size, shape.num_blocks = 40;
        for (const int length : {1, block_size - 1, block_size, block_size + 1, 150}) {
          CAPTURE(block_size);
          CAPTURE(head_dim);
          CAPTURE(length);
          PagedWorld world(shape);
          std::vector<std::uint32_t> blocks;
          for (int i = 0; i * block_size < length; ++i) blocks.push_back(static_cast<std::uint32_t>(39 - 2 * i) % 40);
          const int sequence = world.add(length, blocks, 7);
          const Cache2023 cache(world, sequence, length, blocks);
          std::vector<std::uint16_t> q_host;
          for (int h = 0; h < shape.num_heads; ++h) {
            for (int d = 0; d < head_dim; ++d) q_host.push_back(world.query(sequence, length - 1, h, d));
          }
          const std::size_t width = q_host.size();
          q_host.resize(2 * width);  // of a second sequence, which is empty
          const DeviceArray<std::uint16_t> q(q_host), k(cache.k), v(cache.v), out(2 * width);
          const DeviceArray<std::uint32_t> tables(blocks);
          const DeviceArray<std::int32_t> lens(std::vector<std::int32_t>{length, 0});
          PagedAttention2023Args args;
          args.compute = compute;
          args.out = out.data(), args.q = q.data(), args.k_cache = k.data(), args.v_cache = v.data();
          args.tables = tables.data(), args.context_lens = lens.data();
          args.num_sequences = 2, args.num_heads = shape.num_heads, args.num_kv_heads = shape.num_kv_heads;
          args.head_dim = head_dim, args.block_size = block_size, args.max_blocks = static_cast<int>(blocks.size());
          args.max_context_len = length, args.scale = world.shape().scale;
          check(launch_paged_attention_2023(args, nullptr));
          finish();
          const auto result = out.download();
          const auto expected = world.reference(sequence, length - 1);
          const double tolerance = compute == ComputeType::f16 ? 2e-3 : 2e-2;
          double worst = 0, worst_empty = 0;
          for (std::size_t i = 0; i < width; ++i) {
            const double error = std::abs(to_double(compute, result[i]) - expected[i]);
            worst = error < worst ? worst : error;
            worst_empty += result[width + i] != 0;
          }
          CHECK(worst < tolerance);
          CHECK(worst_empty == 0);
          if (head_dim == 64 && length == 150) {
            const Rows row[] = {{sequence, length - 1, 1}};
            const Bits modern = world.run(row).at({sequence, length - 1});
            double apart = 0;
            for (std::size_t i = 0; i < width; ++i)
              apart = std::max(apart, std::abs(to_double(compute, result[i]) - to_double(compute, modern[i])));
            CHECK(apart < tolerance);
          }
        }
      }
    }
  }
}
