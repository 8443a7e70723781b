// Weights, inputs and outputs of more than 2^31 elements: the last of them, and the first.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "emulator/options.hpp"
#include "far_memory.hpp"
#include "kernels/matmul.hpp"
#include "kernels/matmul_pack.hpp"
#include "narrow_types.hpp"

namespace pagedcore::cuda {
namespace {

using cuda_test::DeviceArray;
using cuda_test::FarMemory;

constexpr std::int64_t kFar = std::int64_t{1} << 31;

struct LastBlocks {
  explicit LastBlocks(std::uint64_t blocks) { cuda_emu::options().only_last_blocks = blocks; }
  ~LastBlocks() { cuda_emu::options().only_last_blocks = 0; }
};

/// Row r of an input and of a weight, small whole numbers: their products are exact in any order.
float in_value(int r, int k) { return static_cast<float>((r + 3 * k) % 5 - 2); }
float weight_value(int n, int k) { return static_cast<float>((2 * n + k) % 7 - 3); }
float product(int r, int n, int k) {
  float sum = 0.0f;
  for (int i = 0; i < k; ++i) sum += in_value(r, i) * weight_value(n, i);
  return sum;
}
std::vector<std::uint16_t> in_row(int r, int k) {
  std::vector<std::uint16_t> row;
  for (int i = 0; i < k; ++i) row.push_back(narrow(DType::bf16, in_value(r, i)));
  return row;
}
/// The last 16 rows of a weight.
std::vector<std::byte> last_tile(int k) {
  const PackSpec spec{16, k};
  std::vector<std::byte> packed(spec.weight_bytes());
  pack_matrix(
      spec,
      [&](std::int64_t row, std::span<float> values) {
        for (int i = 0; i < k; ++i) values[static_cast<std::size_t>(i)] = weight_value(static_cast<int>(row), i);
      },
      packed, {}, one_after_the_other);
  return packed;
}

// rule: cuda.offsets-are-64-bit
TEST_CASE("inputs and outputs whose rows lie beyond 2^31 elements, few rows and many") {
  constexpr int kK = 64, kN = 16;
  const std::vector<std::byte> packed = last_tile(kK);
  const DeviceArray<std::byte> weights(packed);
  for (const int m : {2, 40}) {
    CAPTURE(m);
    const std::int64_t stride = kFar / (m - 1) + 16;  // the last row begins beyond
    FarMemory<std::uint16_t> in(static_cast<std::size_t>(stride * (m - 1) + kK));
    FarMemory<float> out(static_cast<std::size_t>(stride * (m - 1) + kN));
    for (int r = 0; r < m; ++r) in.put(static_cast<std::size_t>(r * stride), in_row(r, kK));
    MatmulArgs args;
    args.in = in.data(), args.out = out.data();
    args.in_stride = args.out_stride = stride;
    args.m = m, args.k = kK, args.n = kN;
    args.weights = weights.data();
    cuda_test::check(launch_matmul(args, DType::bf16, WeightFormat::native, nullptr));
    cuda_test::finish();
    for (const int r : {0, m - 1}) {
      const std::vector<float> row = out.get(static_cast<std::size_t>(r * stride), kN);
      for (int n = 0; n < kN; ++n) CHECK(row[static_cast<std::size_t>(n)] == product(r, n, kK));
    }
  }
}

// rule: cuda.offsets-are-64-bit
TEST_CASE("weights whose last tile lies beyond 2^31 elements, few rows and many") {
  constexpr int kK = 512;
  constexpr std::int32_t kN = static_cast<std::int32_t>(kFar / kK) + 16;  // rows; 4 GiB and a tile
  const std::vector<std::byte> packed = last_tile(kK);
  FarMemory<std::byte> weights(PackSpec{kN, kK}.weight_bytes());
  weights.put(PackSpec{kN, kK}.weight_bytes() - packed.size(), packed);
  for (const int m : {2, 40}) {
    CAPTURE(m);
    std::vector<std::uint16_t> in;
    for (int r = 0; r < m; ++r) {
      const auto row = in_row(r, kK);
      in.insert(in.end(), row.begin(), row.end());
    }
    const DeviceArray<std::uint16_t> device_in(in);
    FarMemory<float> out(static_cast<std::size_t>(m) * kN + (kFar / 4));
    MatmulArgs args;
    args.in = device_in.data(), args.out = out.data();
    args.in_stride = kK, args.out_stride = kN;
    args.m = m, args.k = kK, args.n = kN;
    args.weights = weights.data();
    const LastBlocks only(1);
    cuda_test::check(launch_matmul(args, DType::bf16, WeightFormat::native, nullptr));
    cuda_test::finish();
    for (const int r : {0, m - 1}) {
      const std::vector<float> row = out.get(static_cast<std::size_t>(r) * kN + kN - 16, 16);
      for (int n = 0; n < 16; ++n) CHECK(row[static_cast<std::size_t>(n)] == product(r, n, kK));
    }
  }
}

}  // namespace
}  // namespace pagedcore::cuda
