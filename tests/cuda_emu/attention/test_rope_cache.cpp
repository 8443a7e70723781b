#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/paged_world.hpp"
#include "kernels/rope_cache.hpp"

using namespace cuda_test;

namespace {

struct Case {
  ComputeType compute = ComputeType::bf16;
  KvType kv = KvType::bf16;
  int head_dim = 64, num_heads = 3, num_kv_heads = 1, block_size = 16, num_frequencies = 32;
};

/// Rows of two sequences, in one launch, into the last layer of a storage of two.
struct Step {
  explicit Step(const Case& shape) : c(shape) {
    for (std::size_t i = 0; i < positions.size() * columns(); ++i) qkv.push_back(normal(i));
    for (int i = 0; i < c.num_frequencies; ++i)
      inv_freq.push_back(std::pow(10000.0f, -static_cast<float>(i) / static_cast<float>(c.num_frequencies)));
  }
  std::size_t columns() const { return static_cast<std::size_t>((c.num_heads + 2 * c.num_kv_heads) * c.head_dim); }
  KvTile tile() const { return {c.kv, c.head_dim, c.block_size}; }
  std::int64_t block_bytes() const { return kv_block_bytes(tile(), 2, c.num_kv_heads); }

  void run() {
    const DeviceArray<std::int32_t> positions_d(positions), row_tables_d(row_tables);
    const DeviceArray<std::uint32_t> tables_d(tables);
    const DeviceArray<float> qkv_d(qkv), inv_freq_d(inv_freq), cos(positions.size() * inv_freq.size()),
        sin(positions.size() * inv_freq.size());
    const std::size_t q_columns = static_cast<std::size_t>(c.num_heads * c.head_dim);
    const DeviceArray<std::uint16_t> q_d(positions.size() * q_columns);
    const DeviceArray<std::byte> cache_d(
        std::vector<std::byte>(static_cast<std::size_t>(block_bytes()) * 8, std::byte{0xff}));
    const int rows = static_cast<int>(positions.size());
    check(launch_rotary_table(
        {cos.data(), sin.data(), inv_freq_d.data(), positions_d.data(), rows, c.num_frequencies, 1.5f}, nullptr));
    RopeCacheArgs args;
    args.compute = c.compute;
    args.q = q_d.data(), args.qkv = qkv_d.data();
    args.q_stride = static_cast<std::int64_t>(q_columns), args.qkv_stride = static_cast<std::int64_t>(columns());
    args.kv = {cache_d.data() + block_bytes() / 2, block_bytes(), c.num_kv_heads, tile()};
    args.num_heads = c.num_heads;
    args.tables = tables_d.data(), args.row_tables = row_tables_d.data(), args.positions = positions_d.data();
    args.cos = cos.data(), args.sin = sin.data();
    args.rows = rows, args.num_frequencies = c.num_frequencies;
    check(launch_rope_and_cache(args, nullptr));
    finish();
    q = q_d.download();
    cache = cache_d.download();
  }

  /// Element d of head `head` of the row's qkv, rotated in double.
  double rotated(std::size_t row, int head, int d) const {
    const float* x = &qkv[row * columns() + static_cast<std::size_t>(head * c.head_dim)];
    const int n = c.num_frequencies;
    if (d >= 2 * n) return x[d];
    const double angle = static_cast<float>(positions[row]) * inv_freq[static_cast<std::size_t>(d % n)];
    const double cos = 1.5 * std::cos(angle), sin = 1.5 * std::sin(angle);
    return d < n ? x[d] * cos - x[d + n] * sin : x[d] * cos + x[d - n] * sin;
  }
  const std::byte* tile_of(std::size_t row, int kv_head, bool value) const {
    const std::size_t entry = static_cast<std::size_t>(row_tables[row] + positions[row] / c.block_size);
    return cache.data() + std::int64_t{tables[entry]} * block_bytes() + block_bytes() / 2 +
           (2 * kv_head + value) * tile().bytes();
  }
  float scale(std::size_t row, int kv_head, bool value) const {
    float x = 1.0f;
    if (is_quantized(c.kv))
      std::memcpy(&x, tile_of(row, kv_head, value) + tile().scales_offset() + positions[row] % c.block_size * 4, 4);
    return x;
  }
  double stored(std::size_t row, int kv_head, int d, bool value) const {
    const std::byte* from = tile_of(row, kv_head, value) + positions[row] % c.block_size * tile().row_bytes();
    if (!is_quantized(c.kv)) {
      std::uint16_t bits;
      std::memcpy(&bits, from + 2 * d, 2);
      return to_double(c.compute, bits);
    }
    const auto byte = static_cast<std::uint8_t>(from[kv_place(d)]);
    const double x = c.kv == KvType::int8 ? static_cast<std::int8_t>(byte)
                                          : __half2float(__half(__nv_cvt_fp8_to_halfraw(byte, __NV_E4M3)));
    return x * scale(row, kv_head, value);
  }

  Case c;
  std::vector<std::int32_t> positions{0, 1, 17, 16, 33, 100000, 100001};
  std::vector<std::int32_t> row_tables{0, 0, 0, 3, 3, 6 - 100000 / 16, 6 - 100000 / 16};
  std::vector<std::uint32_t> tables{5, 2, 0, 0, 7, 1, 3};
  std::vector<float> qkv, inv_freq;
  std::vector<std::uint16_t> q;
  std::vector<std::byte> cache;
};

/// Of the rounding to the stored type, at values up to about 6.
double rounding(const Case& c, double x, double largest) {
  switch (c.kv) {
    case KvType::f16:
      return std::abs(x) * 0x1p-11 + 1e-5;
    case KvType::bf16:
      return std::abs(x) * 0x1p-8 + 1e-5;
    case KvType::fp8_e4m3:
      return std::abs(x) * 0x1.1p-4 + largest * 1e-4;
    case KvType::int8:
      return largest / 127 * 0.51;
  }
  return 0;
}

}  // namespace

TEST_CASE("q, k and v are rotated and stored in every type, head size and kind of rotation") {
  for (const auto& [compute, kv] : {std::pair{ComputeType::bf16, KvType::bf16},
                                    {ComputeType::f16, KvType::f16},
                                    {ComputeType::f16, KvType::fp8_e4m3},
                                    {ComputeType::bf16, KvType::int8}}) {
    for (const int head_dim : {64, 80, 96, 112, 128, 256}) {
      for (const int frequencies : {0, head_dim / 4 + 1, head_dim / 2}) {
        CAPTURE(static_cast<int>(kv));
        CAPTURE(head_dim);
        CAPTURE(frequencies);
        Case c{compute, kv, head_dim, 3, 2, 16, frequencies};
        Step step(c);
        step.run();
        double worst_q = 0, worst = 0;  // of the error over what rounding allows
        for (std::size_t row = 0; row < step.positions.size(); ++row) {
          for (int i = 0; i < c.num_heads * head_dim; ++i) {
            const double x = step.rotated(row, i / head_dim, i % head_dim);
            const double got = to_double(
                compute, step.q[row * static_cast<std::size_t>(c.num_heads * head_dim) + static_cast<std::size_t>(i)]);
            worst_q = std::max(
                worst_q, std::abs(got - x) / (std::abs(x) * (compute == ComputeType::f16 ? 0x1p-11 : 0x1p-8) + 1e-5));
          }
          for (int h = 0; h < c.num_kv_heads; ++h) {
            for (const bool value : {false, true}) {
              const int head = c.num_heads + h + (value ? c.num_kv_heads : 0);
              const auto exact = [&](int d) {
                return value ? step.qkv[row * step.columns() + static_cast<std::size_t>(head * head_dim + d)]
                             : step.rotated(row, head, d);
              };
              double largest = 0;
              for (int d = 0; d < head_dim; ++d) largest = std::max(largest, std::abs(exact(d)));
              for (int d = 0; d < head_dim; ++d)
                worst = std::max(worst,
                                 std::abs(step.stored(row, h, d, value) - exact(d)) / rounding(c, exact(d), largest));
            }
          }
        }
        CHECK(worst_q < 1.0);
        CHECK(worst < 1.02);
      }
    }
  }
}

TEST_CASE("nothing but the rows' own slots is written") {
  Step step(Case{});
  step.run();
  std::size_t written = 0;
  for (const std::byte b : step.cache) written += b != std::byte{0xff};
  // 7 rows of K and V; a byte of theirs may be 0xff too.
  CHECK(written <= 7 * 2 * 128);
  CHECK(written > 7 * 2 * 120);
}

TEST_CASE("a value that is not finite becomes NaN keys and zero values; its neighbours stay") {
  for (const auto& [compute, kv] : {std::pair{ComputeType::bf16, KvType::bf16},
                                    {ComputeType::f16, KvType::f16},
                                    {ComputeType::f16, KvType::fp8_e4m3},
                                    {ComputeType::bf16, KvType::int8}}) {
    CAPTURE(static_cast<int>(kv));
    Case c{compute, kv, 64, 3, 2, 16, 32};
    Step clean(c), step(c);
    clean.run();
    const std::size_t v = static_cast<std::size_t>((c.num_heads + c.num_kv_heads) * c.head_dim);  // of KV head 0
    step.qkv[1 * step.columns() + v + 5] = std::numeric_limits<float>::infinity();
    step.qkv[3 * step.columns() + v + 63] = std::numeric_limits<float>::quiet_NaN();
    if (kv == KvType::f16) step.qkv[4 * step.columns() + v] = 1e6f;  // infinite as f16
    step.run();
    for (std::size_t row = 0; row < step.positions.size(); ++row) {
      const bool broken = row == 1 || row == 3 || (row == 4 && kv == KvType::f16);
      for (int h = 0; h < 2; ++h) {
        for (int d = 0; d < 64; ++d) {
          if (broken && h == 0) {
            CHECK(std::isnan(step.stored(row, h, d, false)));
            CHECK(step.stored(row, h, d, true) == 0.0);
          } else {
            CHECK(step.stored(row, h, d, false) == clean.stored(row, h, d, false));
            CHECK(step.stored(row, h, d, true) == clean.stored(row, h, d, true));
          }
        }
      }
    }
  }
}

TEST_CASE("a row of zeros and one of tiny numbers are stored without NaN") {
  for (const KvType kv : {KvType::fp8_e4m3, KvType::int8}) {
    Case c{ComputeType::bf16, kv, 64, 1, 1, 16, 0};
    Step step(c);
    std::fill_n(step.qkv.begin() + 64, 128, 0.0f);
    std::fill_n(step.qkv.begin() + static_cast<std::ptrdiff_t>(step.columns()) + 64, 128, 1e-38f);
    step.run();
    for (int d = 0; d < 64; ++d) {
      CHECK(step.stored(0, 0, d, false) == 0.0);
      CHECK(std::abs(step.stored(1, 0, d, true)) <= 1e-30);
    }
  }
}
