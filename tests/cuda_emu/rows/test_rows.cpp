// Embedding and softcap.
#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "device_array.hpp"
#include "kernels/matmul_pack.hpp"
#include "kernels/rows.hpp"
#include "narrow_types.hpp"

namespace pagedcore::cuda {
namespace {

using cuda_test::DeviceArray;

TEST_CASE("embedding reads rows of weights in every format") {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const auto& [n, k] :
       {std::pair{50, 100}, std::pair{16, 32}, std::pair{3, 5}, std::pair{21, 1500}, std::pair{5, 1112}}) {
    for (const DType type : {DType::f16, DType::bf16}) {
      for (const WeightFormat format : {WeightFormat::native, WeightFormat::int8_row, WeightFormat::int8_group,
                                        WeightFormat::int4_group, WeightFormat::plain}) {
        CAPTURE(n);
        CAPTURE(k);
        CAPTURE(static_cast<int>(format));
        const auto width = static_cast<std::size_t>(k);
        std::vector<float> table(static_cast<std::size_t>(n) * width);
        for (float& x : table) x = normal(random);
        const PackSpec spec{n, k, PackKind::stacked, format, type, 2};
        std::vector<std::byte> weights(spec.weight_bytes()), scales(spec.scale_bytes());
        pack_matrix(
            spec,
            [&](std::int64_t row, std::span<float> out) {
              std::copy_n(&table[static_cast<std::size_t>(row) * width], width, out.begin());
            },
            weights, scales, one_after_the_other);
        const std::vector<TokenId> tokens = {n - 1, 0, n / 2, n - 1};
        const std::size_t stride = width + 3;
        const DeviceArray<std::byte> device_weights(weights), device_scales(scales);
        const DeviceArray<TokenId> device_tokens(tokens);
        const DeviceArray<float> out(3 * stride + width);
        EmbedArgs args;
        args.out = out.data();
        args.out_stride = static_cast<std::int64_t>(stride);
        args.tokens = device_tokens.data();
        args.weights = device_weights.data();
        args.scales = device_scales.data();
        args.k_groups_per_scale = spec.k_groups_per_scale;
        args.rows = 4;
        args.k = k;
        args.scale = 2.0f;
        cuda_test::check(launch_embed(args, type, format, nullptr));
        cuda_test::finish();
        const auto values = out.download();
        // Rounding to the type, or half a step of the quantizer's grid: of 4 bits over a range of at most 8, 8 / 15
        // / 2.
        double worst = 0.0;
        for (std::size_t r = 0; r < 4; ++r)
          for (std::size_t i = 0; i < width; ++i)
            worst = std::max(worst, std::abs(double{values[r * stride + i]} / 2.0 -
                                             double{table[static_cast<std::size_t>(tokens[r]) * width + i]}));
        const bool wide = format == WeightFormat::native || format == WeightFormat::plain;
        const double grid = wide ? 0.0 : format == WeightFormat::int4_group ? 0.3 : 0.02;
        CHECK(worst <= grid + tolerance(type));
      }
    }
  }
}

TEST_CASE("scale and softcap, in place, and nothing between rows") {
  std::mt19937 random(2);
  std::normal_distribution<float> normal(0.0f, 20.0f);
  for (const float softcap : {0.0f, 30.0f}) {
    const std::size_t rows = 3, cols = 1300, stride = 1305;
    std::vector<float> x(rows * stride);
    for (float& v : x) v = normal(random);
    const DeviceArray<float> device(x);
    cuda_test::check(
        launch_scale_softcap({device.data(), static_cast<std::int64_t>(stride), 3, 1300, 0.7f, softcap}, nullptr));
    cuda_test::finish();
    const auto out = device.download();
    double worst = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      double expected = double{x[i]};
      if (i % stride < cols) {
        expected *= double{0.7f};
        if (softcap > 0.0f) expected = double{softcap} * std::tanh(expected / double{softcap});
      }
      worst = std::max(worst, std::abs(double{out[i]} - expected));
    }
    CHECK(worst <= 1e-5);  // of values up to 60: two ulp
  }
}

}  // namespace
}  // namespace pagedcore::cuda
