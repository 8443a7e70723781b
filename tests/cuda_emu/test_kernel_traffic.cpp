// What kernels move against what they must. Requests are what multiprocessors ask of their caches; distinct bytes are
// what is left for memory where the caches keep what is asked for again. Compiled to call the emulator.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "attention/paged_world.hpp"
#include "emulator/traffic.hpp"
#include "kernels/attention_launch.cuh"
#include "kernels/copy.hpp"
#include "kernels/matmul.hpp"
#include "kernels/rows.hpp"

namespace pagedcore::cuda {

/// As attention.cu, for what this file runs: the rest would take minutes to compile.
cudaError_t launch_attention(const AttentionArgs& args, cudaStream_t stream) {
  using T = __nv_bfloat16;
  const cudaError_t error = args.kv.tile.type == KvType::bf16 ? launch_head_dim<T, KvType::bf16, 128>(args, stream)
                                                              : launch_head_dim<T, KvType::fp8_e4m3, 128>(args, stream);
  if (error != cudaSuccess || args.num_split_rows == 0) return error;
  return merge_head_dim<T, 128>(args, stream);
}

}  // namespace pagedcore::cuda

using namespace cuda_test;
using cuda_emu::Traffic;
using pagedcore::DType;

namespace {

template <typename Run>
Traffic traffic_of(const Run& run) {
  cuda_emu::count_traffic();
  run();
  finish();
  return cuda_emu::counted_traffic();
}

double requested(const Traffic& t) { return static_cast<double>(t.read_bytes + t.written_bytes); }
double distinct(const Traffic& t) { return static_cast<double>(t.distinct_read_bytes + t.distinct_written_bytes); }

/// Not less either: a count that misses accesses proves nothing.
void check_near(double bytes, double ideal, double factor) {
  CAPTURE(ideal);
  CHECK(bytes <= factor * ideal);
  CHECK(bytes >= ideal);
}

WorldShape decode_shape(KvType kv) {
  WorldShape shape;
  shape.compute = ComputeType::bf16, shape.kv = kv;
  shape.head_dim = 128, shape.num_heads = 8, shape.num_kv_heads = 2, shape.num_blocks = 128;
  shape.row_gap = 0;  // as a decoder has it
  return shape;
}

/// Of split contexts: a state for each row, segment and head is written, and read once more.
double state_bytes(const WorldShape& shape, int states) {
  return 2.0 * static_cast<double>(attention_state_bytes(states, shape.num_heads, shape.head_dim));
}

/// Keys and values of `tokens`, and what `rows` read of q and write to the output.
double attention_ideal(const WorldShape& shape, int tokens, int rows) {
  const KvTile tile{shape.kv, shape.head_dim, shape.block_size};
  const int kv = 2 * shape.num_kv_heads * (tile.row_bytes() + (is_quantized(shape.kv) ? 4 : 0));
  return static_cast<double>(tokens) * kv + static_cast<double>(rows) * 2 * shape.num_heads * shape.head_dim * 2;
}

}  // namespace

// rule: cuda.wide-accesses
TEST_CASE("attention reads the paged keys and values once in decode, for all query heads of a KV head") {
  for (const KvType kv : {KvType::bf16, KvType::fp8_e4m3}) {
    for (const int parallelism : {1, 64}) {  // whole contexts; as short pieces as there are
      CAPTURE(static_cast<int>(kv));
      CAPTURE(parallelism);
      PagedWorld world(decode_shape(kv));
      const int lengths[] = {1000, 321, 517};
      std::vector<Rows> rows;
      int first = 0;
      for (const int length : lengths) {
        auto blocks = blocks_from(first, length, 16);
        first += static_cast<int>(blocks.size());
        std::ranges::reverse(blocks);
        rows.push_back({world.add(length, blocks, 5), length - 1, 1});
      }
      const Traffic t = traffic_of([&] { world.run(rows, {.parallelism = parallelism}); });
      const double states = parallelism == 1 ? 0.0 : state_bytes(world.shape(), 4 + 2 + 3);
      check_near(requested(t), attention_ideal(world.shape(), 1000 + 321 + 517, 3) + states, 1.1);
    }
  }
}

TEST_CASE("attention reads a common prefix once for all sequences that decode over it") {
  PagedWorld world(decode_shape(KvType::bf16));
  constexpr int kShared = 1024, kOwn = 32, kSequences = 6;
  std::vector<Rows> rows;
  const int base = world.add(kShared, blocks_from(0, kShared, 16), 1);
  for (int i = 0; i < kSequences; ++i) {
    const auto own = blocks_from(64 + 2 * i, kOwn, 16);
    rows.push_back(
        {world.fork(base, kShared, kShared + kOwn, own, static_cast<std::uint64_t>(2 + i)), kShared + kOwn - 1, 1});
  }
  const Traffic t = traffic_of([&] { world.run(rows); });
  const double states = state_bytes(world.shape(), kSequences * (kShared / kContextSegment + 1));
  check_near(requested(t), attention_ideal(world.shape(), kShared + kSequences * kOwn, kSequences) + states, 1.1);
  CHECK(requested(t) < 0.5 * attention_ideal(world.shape(), kSequences * (kShared + kOwn), kSequences));
}

TEST_CASE("attention asks for the context once for every tile of 64 rows in prefill, and memory moves it once") {
  PagedWorld world(decode_shape(KvType::bf16));
  constexpr int kTokens = 200, kTile = 64 / 4;  // tokens of a tile
  const Rows rows[] = {{world.add(kTokens, blocks_from(0, kTokens, 16), 3), 0, kTokens}};
  const Traffic t = traffic_of([&] { world.run(rows); });
  int context = 0;
  for (int first = 0; first < kTokens; first += kTile) context += std::min(kTokens, first + kTile);
  check_near(requested(t), attention_ideal(world.shape(), context, kTokens), 1.1);
  CHECK(t.written_bytes == t.distinct_written_bytes);  // whole sectors
  check_near(distinct(t), attention_ideal(world.shape(), kTokens, kTokens), 1.1);
}

// docs/cuda_kernels.md says what shared memory these take.
static_assert(AttentionShape<__nv_bfloat16, KvType::bf16, 128, 1, 4>::kSharedBytes == 42752);
static_assert(AttentionShape<__nv_bfloat16, KvType::bf16, 128, 4, 2>::kSharedBytes == 62976);
static_assert(AttentionShape<__nv_bfloat16, KvType::fp8_e4m3, 128, 1, 4>::kSharedBytes == 26880);
static_assert(AttentionShape<__nv_bfloat16, KvType::fp8_e4m3, 128, 4, 2>::kSharedBytes == 47104);

TEST_CASE("block copies, and swaps' gathers and scatters, read and write every byte once") {
  constexpr std::int64_t kBytes = 96 << 10;
  constexpr int kBlocks = 12, kCount = 5;
  const DeviceArray<std::byte> storage(kBlocks * kBytes), buffer(kCount * kBytes);
  const DeviceArray<std::uint32_t> from(std::vector<std::uint32_t>{7, 3, 9, 0, 11}),
      to(std::vector<std::uint32_t>{1, 8, 2, 10, 5});
  const CopyArgs copy{storage.data(), storage.data(), kBytes, kBytes, to.data(), from.data(), kBytes, kCount};
  const CopyArgs gather{buffer.data(), storage.data(), kBytes, kBytes, nullptr, from.data(), kBytes, kCount};
  const CopyArgs scatter{storage.data(), buffer.data(), kBytes, kBytes, to.data(), nullptr, kBytes, kCount};
  for (const CopyArgs& args : {copy, gather, scatter}) {
    const Traffic t = traffic_of([&] { check(launch_copy(args, nullptr)); });
    check_near(requested(t), 2.0 * kCount * kBytes, 1.1);
    CHECK(t.written_bytes == kCount * kBytes);
    CHECK(t.requests * 512 <= 1.25 * 2 * kCount * kBytes);  // 512 bytes at a time; and the indices
  }
}

TEST_CASE("matmul: memory moves every byte once; caches move the inputs once for every block of weight tiles") {
  constexpr int kN = 1024, kK = 512, kTiles = kN / kTileRows, kGroups = kK / kGroupK;
  for (const WeightFormat format :
       {WeightFormat::native, WeightFormat::int8_row, WeightFormat::int8_group, WeightFormat::int4_group}) {
    const double weights = 1.0 * kTiles * kGroups * tile_bytes(format);
    // A scale, or with a zero point two, for each row and 64 columns, what a warp has; of int8_row an f32 for each row.
    const int scale_bytes = format == WeightFormat::int8_group ? 2 : format == WeightFormat::int4_group ? 4 : 0;
    const double scales = format == WeightFormat::int8_row ? 4.0 * kN : 1.0 * kN * (kK / 64) * scale_bytes;
    const DeviceArray<std::byte> w(static_cast<std::size_t>(weights)), s(static_cast<std::size_t>(scales) + 8);
    for (const int m : {1, 2, 3, 4, 6, 8, 16, 32, 100}) {
      for (const int block_tiles : {1, 2, 4}) {
        if (m > kStreamRows && block_tiles > 1) continue;
        CAPTURE(static_cast<int>(format));
        CAPTURE(m);
        CAPTURE(block_tiles);
        const DeviceArray<std::uint16_t> in(static_cast<std::size_t>(m * kK));
        const DeviceArray<float> out(static_cast<std::size_t>(m * kN));
        MatmulArgs args;
        args.in = in.data(), args.in_stride = args.k = kK;
        args.m = m, args.n = kN;
        args.weights = w.data(), args.scales = s.data(), args.k_groups_per_scale = 64 / kGroupK;
        args.out = out.data(), args.out_stride = kN;
        args.block_tiles = block_tiles;
        const Traffic t = traffic_of([&] { check(launch_matmul(args, DType::bf16, format, nullptr)); });
        const double inputs = 2.0 * m * kK, outputs = 4.0 * m * kN;
        const double ideal = weights + scales + inputs + outputs;
        check_near(distinct(t), ideal, 1.1);
        if (m > kStreamRows) {  // tiles of 128 outputs and 64 rows; scales by both warps of a tile
          check_near(requested(t), 2 * (weights + 2 * scales) + kTiles / 8 * inputs + outputs, 1.1);
          continue;
        }
        int scale_reads = 1;  // a row's scale comes with the outputs: for each four of a band of 8
        if (format == WeightFormat::int8_row) scale_reads = m == 1 ? 1 : 2 * ((m + 7) / 8);
        check_near(requested(t), weights + scale_reads * scales + kTiles / block_tiles * inputs + outputs, 1.01);
        // Within 1.1 of the ideal at the caches too: up to so many rows, where the device is small beside the weight.
        if (block_tiles != choose_block_tiles(args, format, 1)) continue;
        const int most = format == WeightFormat::native ? 6 : format == WeightFormat::int4_group ? 1 : 3;
        CHECK((requested(t) <= 1.1 * ideal) == (m <= most));
      }
    }
  }
}

TEST_CASE("matmul over leaves of k: weights once, with the padding of leaves, and a sector for each end of a leaf") {
  constexpr int kN = 1024, kTiles = kN / kTileRows, kStreamTiles = 1, kTiledTiles = 4;  // weight tiles of a block
  struct Form {
    int leaves, columns;  // of a leaf
  };
  for (const Form form : {Form{8, 64}, Form{16, 32}, Form{5, 80}, Form{24, 128}}) {
    const int groups_of_leaf = (form.columns + kGroupK - 1) / kGroupK, groups = form.leaves * groups_of_leaf;
    const int k = form.leaves * form.columns;
    std::vector<MatmulLeaf> ends;
    for (int i = 1; i <= form.leaves; ++i) ends.push_back({i * form.columns, i * groups_of_leaf});
    const DeviceArray<MatmulLeaf> on_device(ends);
    const double weights = 1.0 * kTiles * groups * tile_bytes(WeightFormat::native);
    const DeviceArray<std::byte> w(static_cast<std::size_t>(weights));
    for (const int m : {1, 6, 8, 20, 32, 100}) {
      CAPTURE(form.columns);
      CAPTURE(m);
      const DeviceArray<std::uint16_t> in(static_cast<std::size_t>(m * k));
      const DeviceArray<float> out(static_cast<std::size_t>(m * kN));
      MatmulArgs args;
      args.in = in.data(), args.in_stride = args.k = k;
      args.m = m, args.n = kN;
      args.weights = w.data();
      args.out = out.data(), args.out_stride = kN;
      args.leaves = {on_device.data(), form.leaves, groups, true};
      const Traffic t = traffic_of([&] { check(launch_matmul(args, DType::bf16, WeightFormat::native, nullptr)); });
      const double inputs = 2.0 * m * k, outputs = 4.0 * m * kN;
      check_near(distinct(t), weights + inputs + outputs, 1.1);
      const bool stream = m <= kStreamRows;
      const int tiles = stream ? kStreamTiles : kTiledTiles, row_blocks = stream ? 1 : (m + 63) / 64;
      // A streaming block's eight warps ask for the end of each of their leaves and for those before and after them.
      // Each of a tiled block's four has all leaves, twice: for what it copies and for what it sums.
      const int end_reads = stream ? form.leaves + 2 * 8 : row_blocks * 2 * 4 * form.leaves;
      const double ends_bytes = 32.0 * kTiles / tiles * end_reads;
      const double ideal = row_blocks * weights + kTiles / tiles * inputs + outputs;
      CHECK(requested(t) <= 1.01 * ideal + ends_bytes);
      CHECK(requested(t) >= ideal);
      CHECK(ends_bytes <= 0.1 * ideal);
    }
  }
}

TEST_CASE("matmul: a gated tile has 8 outputs, half a sector of 16-bit ones") {
  constexpr int kN = 64, kK = 256, kM = 4;
  const DeviceArray<std::uint16_t> w(2 * kN * kK), in(kM * kK), out(kM * kN);
  MatmulArgs args;
  args.in = in.data(), args.in_stride = args.k = kK;
  args.m = kM, args.n = kN;
  args.weights = reinterpret_cast<const std::byte*>(w.data());
  args.out = out.data(), args.out_stride = kN, args.out_is_narrow = true;
  args.finish = pagedcore::Epilogue::Kind::gated;
  for (const int block_tiles : {1, 4}) {
    args.block_tiles = block_tiles;
    const Traffic t = traffic_of([&] { check(launch_matmul(args, DType::bf16, WeightFormat::native, nullptr)); });
    CHECK(t.written_bytes == 2 * kM * kN * 2);
    CHECK(t.distinct_written_bytes == kM * kN * 2);
  }
}

TEST_CASE("embedding: every output once, in whole sectors; the weights of two rows lie in one sector") {
  constexpr int kRows = 5, kK = 1024;
  const DeviceArray<std::uint16_t> weights(16 * 4 * kK);
  const DeviceArray<float> out(kRows * kK);
  const DeviceArray<pagedcore::TokenId> tokens(std::vector<pagedcore::TokenId>{3, 60, 0, 31, 17});
  EmbedArgs args;
  args.out = out.data(), args.out_stride = kK;
  args.tokens = tokens.data(), args.rows = kRows, args.k = kK;
  args.weights = reinterpret_cast<const std::byte*>(weights.data());
  args.scale = 1.0f;
  for (const WeightFormat format : {WeightFormat::native, WeightFormat::plain}) {
    const Traffic t = traffic_of([&] { check(launch_embed(args, DType::bf16, format, nullptr)); });
    CHECK(t.written_bytes == kRows * kK * 4);
    CHECK(t.distinct_written_bytes == kRows * kK * 4);
    const double rows = format == WeightFormat::native ? 2.0 : 1.0;  // of packed weights a lane's 16 bytes hold two
    check_near(static_cast<double>(t.read_bytes), rows * kRows * kK * 2, 1.1);
  }
}
