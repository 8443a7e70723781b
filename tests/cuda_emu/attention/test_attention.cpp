#include <doctest/doctest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "attention/paged_world.hpp"

using namespace cuda_test;

namespace {

std::string name(KvType type) {
  switch (type) {
    case KvType::f16:
      return "f16";
    case KvType::bf16:
      return "bf16";
    case KvType::fp8_e4m3:
      return "fp8";
    case KvType::int8:
      return "int8";
  }
  return "?";
}

/// For data of unit variance: the rounding of probabilities and outputs to the type of the product.
double tolerance(const WorldShape& s) { return s.compute == ComputeType::f16 && !is_quantized(s.kv) ? 2e-3 : 2e-2; }

double worst_error(const PagedWorld& world, const std::map<std::pair<int, int>, Bits>& out) {
  double worst = 0;
  for (const auto& [key, bits] : out) {
    const auto expected = world.reference(key.first, key.second);
    for (std::size_t i = 0; i < bits.size(); ++i) {
      const double error = std::abs(to_double(world.shape().compute, bits[i]) - expected[i]);
      worst = error <= worst ? worst : error;  // NaN counts as larger
      if (error != error) return error;
    }
  }
  return worst;
}

struct Storage {
  ComputeType compute;
  KvType kv;
};
constexpr Storage kStorages[] = {{ComputeType::f16, KvType::f16},      {ComputeType::bf16, KvType::bf16},
                                 {ComputeType::f16, KvType::fp8_e4m3}, {ComputeType::bf16, KvType::fp8_e4m3},
                                 {ComputeType::f16, KvType::int8},     {ComputeType::bf16, KvType::int8}};

WorldShape shape_of(const Storage& storage, int head_dim, int heads, int kv_heads) {
  WorldShape s;
  s.compute = storage.compute, s.kv = storage.kv;
  s.head_dim = head_dim, s.num_heads = heads, s.num_kv_heads = kv_heads;
  return s;
}

}  // namespace

TEST_CASE("every head size and type of storage: decode and prefill against double") {
  for (const Storage& storage : kStorages) {
    for (const int head_dim : {64, 80, 96, 112, 128, 256}) {
      CAPTURE(name(storage.kv));
      CAPTURE(static_cast<int>(storage.compute));
      CAPTURE(head_dim);
      PagedWorld world(shape_of(storage, head_dim, 4, 2));
      const int a = world.add(70, {9, 3, 40, 1, 22}, 1), b = world.add(21, {63, 0}, 2);
      const Rows batch[] = {{b, 20, 1}, {a, 58, 12}, {a, 57, 1}};
      const double error = worst_error(world, world.run(batch));
      CHECK(error < tolerance(world.shape()));
    }
  }
}

TEST_CASE("every ratio of query to KV heads") {
  for (const int ratio : {1, 2, 3, 4, 7, 8, 17}) {
    CAPTURE(ratio);
    PagedWorld world(shape_of(kStorages[1], 64, 2 * ratio, 2));
    const int a = world.add(90, blocks_from(0, 90, 16), 1);
    const Rows batch[] = {{a, 66, 1}, {a, 67, 23}};
    CHECK(worst_error(world, world.run(batch)) < 2e-2);
  }
}

TEST_CASE("lengths at the edges of blocks, pieces and segments; blocks of any size") {
  for (const int block_size : {1, 5, 16, 32, 128}) {
    WorldShape shape = shape_of(kStorages[0], 64, 2, 1);
    shape.block_size = block_size;
    shape.num_blocks = 3000 / block_size + 12;
    PagedWorld world(shape);
    std::vector<Rows> batch;
    int next = 0;
    for (const int length : {1, block_size - 1, block_size, block_size + 1, 0, 63, 64, 65, 255, 256, 257, 300}) {
      if (length == 0) {
        batch.push_back({0, 0, 0});  // a range without rows
        continue;
      }
      const auto blocks = blocks_from(next, length, block_size);
      next += static_cast<int>(blocks.size());
      const int s = world.add(length, blocks, static_cast<std::uint64_t>(length));
      const int rows = std::min(length, 3);
      batch.push_back({s, length - rows, rows});
    }
    CAPTURE(block_size);
    CHECK(worst_error(world, world.run(batch)) < 2e-3);
    CHECK(worst_error(world, world.run(batch, {.parallelism = 1000})) < 2e-3);
  }
}

TEST_CASE("windows and soft caps") {
  for (const int window : {0, 1, 16, 40, 100, 300}) {
    for (const float softcap : {0.0f, 2.0f}) {
      CAPTURE(window);
      CAPTURE(softcap);
      WorldShape shape = shape_of(kStorages[0], 64, 4, 2);
      shape.window = window, shape.softcap = softcap, shape.scale = 0.3f;
      PagedWorld world(shape);
      const int a = world.add(330, blocks_from(5, 330, 16), 1);
      const Rows batch[] = {{a, 290, 40}, {a, 289, 1}, {a, 7, 2}};
      // Scores of this scale are larger than those of unit-normal data: so are probabilities' errors.
      CHECK(worst_error(world, world.run(batch)) < 4e-3);
      CHECK(worst_error(world, world.run(batch, {.parallelism = 1000})) < 4e-3);
    }
  }
}

// rule: cuda.row-stands-alone
TEST_CASE("same row, same bits: alone, in any chunk and batch, split or not") {
  for (const Storage& storage : {kStorages[0], kStorages[1], kStorages[2], kStorages[5]}) {
    for (const int window : {0, 150}) {
      if (window > 0 && storage.kv != KvType::f16) continue;  // masks do not depend on the storage
      CAPTURE(name(storage.kv));
      CAPTURE(window);
      WorldShape shape = shape_of(storage, 64, 4, 2);
      shape.window = window;
      PagedWorld world(shape);
      const int length = 540;
      const int a = world.add(length, blocks_from(0, length, 16), 1), b = world.add(200, blocks_from(40, 200, 16), 2);
      const Rows whole_rows[] = {{a, 0, length}};
      const auto whole = world.run(whole_rows);

      const auto same = [&](std::span<const Rows> batch, const Cut& cut) {
        for (const auto& [key, bits] : world.run(batch, cut)) {
          if (key.first != a) continue;
          CAPTURE(key.second);
          CHECK(bits == whole.at(key));
        }
      };
      const Rows decode[] = {{a, 539, 1}, {b, 199, 1}, {a, 511, 1}, {a, 256, 1}, {a, 255, 1}, {a, 0, 1}, {a, 63, 1}};
      same(decode, {});
      same(decode, {.parallelism = 1000});
      same(decode, {.parallelism = 1000, .max_states = 4});
      const Rows verification[] = {{a, 530, 4}, {b, 100, 5}};
      same(verification, {.parallelism = 4});
      const Rows chunks[] = {{b, 0, 37}, {a, 100, 31}, {a, 131, 2}, {a, 133, 190}, {b, 37, 100}};
      same(chunks, {});
      same(chunks, {.parallelism = 1000});
      const Rows long_chunk[] = {{a, 400, 140}};
      same(long_chunk, {.parallelism = 30});
    }
  }
}

TEST_CASE("same row, same bits for other head sizes and ratios") {
  const struct {
    int head_dim, heads, kv_heads;
  } shapes[] = {{80, 7, 1}, {112, 8, 1}, {128, 6, 2}, {256, 5, 1}, {96, 20, 1}};
  for (const auto& s : shapes) {
    for (const Storage& storage : {kStorages[0], kStorages[3]}) {
      CAPTURE(s.head_dim);
      CAPTURE(name(storage.kv));
      PagedWorld world(shape_of(storage, s.head_dim, s.heads, s.kv_heads));
      const int a = world.add(280, blocks_from(0, 280, 16), 1);
      const Rows whole_rows[] = {{a, 240, 40}};
      const auto whole = world.run(whole_rows);
      for (const int position : {240, 254, 255, 256, 279}) {
        const Rows row[] = {{a, position, 1}};
        CHECK(world.run(row).at({a, position}) == whole.at({a, position}));
        CHECK(world.run(row, {.parallelism = 1000}).at({a, position}) == whole.at({a, position}));
      }
    }
  }
}

TEST_CASE("sequences with a common prefix read its segments once, with the same bits") {
  WorldShape shape = shape_of(kStorages[1], 64, 8, 2);
  shape.num_blocks = 256;
  PagedWorld world(shape);
  const int length = 600;
  std::vector<int> family{world.add(length, blocks_from(0, length, 16), 1)};
  int next = 40;
  for (int i = 0; i < 8; ++i) {
    const int from = 512 + 5 * i;
    const auto own = blocks_from(next, length - from / 16 * 16, 16);
    next += static_cast<int>(own.size());
    family.push_back(world.fork(family[0], from, length, own, static_cast<std::uint64_t>(10 + i)));
  }
  const int cousin = world.fork(family[0], 300, 500, blocks_from(next, 500 - 288, 16), 30);
  const int stranger = world.add(600, blocks_from(200, 600, 16), 31);
  family.push_back(cousin);
  family.push_back(stranger);

  std::vector<Rows> batch;
  for (const int s : family) batch.push_back({s, (s == cousin ? 500 : 600) - 1, 1});
  const AttentionPlan plan = world.plan(batch);
  // Ten sequences share segment 0, nine of them segment 1: 40 and 36 query rows of 4 to a KV head.
  REQUIRE(plan.wide.size() == 2);
  CHECK(plan.wide[0].count == 40);
  CHECK(plan.wide[1].count == 36);
  CHECK(plan.wide[1].begin == 256);
  CHECK(plan.num_states == 9 * 3 + 2);

  const auto shared = world.run(batch);
  for (const Rows& row : batch) {
    const Rows alone[] = {row};
    CAPTURE(row.sequence);
    CHECK(shared.at({row.sequence, row.first}) == world.run(alone).at({row.sequence, row.first}));
  }
  // Without room for their states, nothing is shared.
  CHECK(world.plan(batch, {.max_states = 0}).wide.empty());
  CHECK(world.run(batch, {.max_states = 0}) == shared);
  CHECK(world.run(batch, {.parallelism = 1000}) == shared);
}

TEST_CASE("a token that is not finite reaches the rows that see it, and no others") {
  for (const Storage& storage : {kStorages[0], kStorages[1], kStorages[2], kStorages[5]}) {
    CAPTURE(name(storage.kv));
    WorldShape shape = shape_of(storage, 64, 4, 2);
    shape.window = 50;
    PagedWorld world(shape);
    const int a = world.add(120, blocks_from(0, 120, 16), 1);
    const Rows batch[] = {{a, 10, 110}};
    const auto clean = world.run(batch);
    world.break_token(a, 37, 1);  // seen by positions 37 to 86, query heads 2 and 3
    for (const auto& [key, bits] : world.run(batch)) {
      CAPTURE(key.second);
      const bool sees = key.second >= 37 && key.second < 37 + 50;
      const Bits& before = clean.at(key);
      CHECK(std::equal(bits.begin(), bits.begin() + 128, before.begin()));
      if (!sees) CHECK(bits == before);
      if (sees)
        CHECK(std::all_of(bits.begin() + 128, bits.end(),
                          [&](std::uint16_t x) { return std::isnan(to_double(storage.compute, x)); }));
    }
  }
}

// rule: cuda.offsets-are-64-bit
TEST_CASE("blocks further apart than 2^31 bytes") {
  for (const KvType kv : {KvType::f16, KvType::int8}) {
    PagedWorld world(shape_of({ComputeType::f16, kv}, 64, 2, 1));
    const int a = world.add(70, {3, 0, 4, 1, 2}, 1);
    constexpr std::int64_t kStride = (std::int64_t{1} << 31) + 4096;
    const auto bytes = static_cast<std::size_t>(kStride) * 5;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    auto* data = static_cast<std::byte*>(memory);
    for (int block = 0; block < 5; ++block)
      std::copy_n(world.cache().begin() + block * world.block_bytes(), world.block_bytes(), data + block * kStride);
    const Rows batch[] = {{a, 60, 10}, {a, 59, 1}};
    const auto dense = world.run(batch);
    world.place(data, kStride);
    CHECK(world.run(batch) == dense);
    munmap(memory, bytes);
  }
}
