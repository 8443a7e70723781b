// Rows of more than 2^31 elements together: tables of embeddings, norms, logits.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "far_memory.hpp"
#include "kernels/matmul_pack.hpp"
#include "kernels/norm.hpp"
#include "kernels/rows.hpp"
#include "narrow_types.hpp"

namespace pagedcore::cuda {
namespace {

using cuda_test::DeviceArray;
using cuda_test::FarMemory;

constexpr std::int64_t kFar = std::int64_t{1} << 31;

// rule: cuda.offsets-are-64-bit
TEST_CASE("an embedding from beyond 2^31 elements of a table, packed and plain, to a row beyond them") {
  constexpr int kK = 512;
  constexpr std::int64_t kN = kFar / kK + 16;
  for (const WeightFormat format : {WeightFormat::native, WeightFormat::plain}) {
    CAPTURE(static_cast<int>(format));
    const auto value = [](std::int64_t row, int k) { return static_cast<float>((5 * row + k) % 61 - 30); };
    const PackSpec last{16, kK, PackKind::stacked, format};
    std::vector<std::byte> packed(last.weight_bytes());
    pack_matrix(
        last,
        [&](std::int64_t row, std::span<float> values) {
          for (int i = 0; i < kK; ++i) values[static_cast<std::size_t>(i)] = value(row, i);
        },
        packed, {}, one_after_the_other);
    const PackSpec all{kN, kK, PackKind::stacked, format};
    FarMemory<std::byte> table(all.weight_bytes());
    table.put(all.weight_bytes() - packed.size(), packed);
    FarMemory<float> out(static_cast<std::size_t>(kFar + 16 + kK));
    const DeviceArray<TokenId> tokens(std::vector<TokenId>{0, static_cast<TokenId>(kN - 3)});
    EmbedArgs args;
    args.out = out.data(), args.out_stride = kFar + 16;
    args.tokens = tokens.data();
    args.weights = table.data();
    args.rows = 2, args.k = kK;
    cuda_test::check(launch_embed(args, DType::bf16, format, nullptr));
    cuda_test::finish();
    CHECK(out.get(0, kK) == std::vector<float>(kK, 0.0f));
    const std::vector<float> row = out.get(static_cast<std::size_t>(kFar + 16), kK);
    for (int i = 0; i < kK; ++i) CHECK(row[static_cast<std::size_t>(i)] == value(13, i));
  }
}

// rule: cuda.offsets-are-64-bit
TEST_CASE("a norm and a soft cap of a row beyond 2^31 elements") {
  constexpr std::size_t kCols = 64;
  const std::int64_t stride = kFar + 8;
  FarMemory<float> x(static_cast<std::size_t>(stride) + kCols), out(static_cast<std::size_t>(stride) + kCols);
  std::vector<float> values;
  double squares = 0.0;
  for (std::size_t i = 0; i < kCols; ++i) {
    values.push_back(static_cast<float>(i) - 20.0f);
    squares += double{values[i]} * double{values[i]};
  }
  x.put(static_cast<std::size_t>(stride), values);
  const DeviceArray<float> one(std::vector<float>(kCols, 1.0f));
  NormArgs args;
  args.in = x.data(), args.in_stride = stride;
  args.out = out.data(), args.out_stride = stride;
  args.weight = one.data();
  args.rows = 2, args.cols = kCols;
  args.params = {};
  cuda_test::check(launch_norm(args, DType::f32, nullptr));
  cuda_test::check(launch_scale_softcap({x.data(), stride, 2, kCols, 3.0f, 0.0f}, nullptr));
  cuda_test::finish();
  const std::vector<float> normed = out.get(static_cast<std::size_t>(stride), kCols),
                           scaled = x.get(static_cast<std::size_t>(stride), kCols);
  const double scale = 1.0 / std::sqrt(squares / double{kCols} + double{args.params.eps});
  for (std::size_t i = 0; i < kCols; ++i) {
    CHECK(std::abs(double{normed[i]} - double{values[i]} * scale) < 1e-5);
    CHECK(scaled[i] == 3.0f * values[i]);
  }
}

}  // namespace
}  // namespace pagedcore::cuda
