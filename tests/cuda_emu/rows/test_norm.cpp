// Norms against double.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "device_array.hpp"
#include "kernels/norm.hpp"
#include "narrow_types.hpp"

namespace pagedcore::cuda {
namespace {

using cuda_test::DeviceArray;
using Values = std::vector<float>;

Values normal(std::size_t size, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(0.3f, 1.0f);
  Values values(size);
  for (float& x : values) x = distribution(random);
  return values;
}

std::vector<double> reference(const float* x, std::size_t cols, const Values& weight, const Values& bias,
                              const NormParams& p) {
  double mean = 0.0, square = 0.0;
  if (p.kind == NormKind::layer)
    for (std::size_t i = 0; i < cols; ++i) mean += double{x[i]} / static_cast<double>(cols);
  for (std::size_t i = 0; i < cols; ++i) square += (x[i] - mean) * (x[i] - mean) / static_cast<double>(cols);
  std::vector<double> y(cols);
  for (std::size_t i = 0; i < cols; ++i)
    y[i] = (x[i] - mean) / std::sqrt(square + double{p.eps}) * (double{weight[i]} + double{p.weight_offset}) +
           (bias.empty() ? 0.0 : double{bias[i]});
  return y;
}

/// f32 results are a few roundings away; a weight or bias of variance 1 makes narrow ones as large as 10.
double allowed(DType type, double value) {
  return (type == DType::f32 ? 1e-5 : tolerance(type)) * std::max(1.0, std::abs(value));
}

/// Runs the norm with `in_gap` and `out_gap` columns between rows; in place where the output is f32 and `in_place`.
Values run(const Values& in, std::size_t rows, std::size_t cols, const Values& weight, const Values& bias,
           const NormParams& p, DType type, std::size_t gap, bool in_place) {
  const std::size_t stride = cols + gap, size = (rows - 1) * stride + cols;
  Values spread(size, NAN);
  for (std::size_t r = 0; r < rows; ++r) std::copy_n(&in[r * cols], cols, &spread[r * stride]);
  const DeviceArray<float> device_in(spread), device_weight(weight), device_bias(bias), wide(size);
  const DeviceArray<std::uint16_t> narrow_out(size);
  NormArgs args;
  args.in = device_in.data();
  args.in_stride = args.out_stride = static_cast<std::int64_t>(stride);
  args.out = type != DType::f32 ? static_cast<void*>(narrow_out.data()) : in_place ? device_in.data() : wide.data();
  args.weight = device_weight.data();
  args.bias = bias.empty() ? nullptr : device_bias.data();
  args.rows = static_cast<std::int32_t>(rows);
  args.cols = static_cast<std::int32_t>(cols);
  args.params = p;
  cuda_test::check(launch_norm(args, type, nullptr));
  cuda_test::finish();
  Values all;
  if (type == DType::f32)
    all = (in_place ? device_in : wide).download();
  else
    for (const std::uint16_t bits : narrow_out.download()) all.push_back(widen(type, bits));
  Values out;
  for (std::size_t r = 0; r < rows; ++r) out.insert(out.end(), &all[r * stride], &all[r * stride] + cols);
  return out;
}

TEST_CASE("norms of every kind, output and width, and rows at any alignment") {
  int variant = 0;
  for (const std::size_t cols : {1u, 3u, 64u, 127u, 1024u, 2050u}) {
    for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
      for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
        const std::size_t rows = 3;
        const Values in = normal(rows * cols, 1), weight = normal(cols, 2);
        const Values bias = variant % 2 == 0 ? normal(cols, 3) : Values{};
        const NormParams p{kind, 1e-5f, variant % 3 == 0 ? 1.0f : 0.0f};
        const Values out =
            run(in, rows, cols, weight, bias, p, type, static_cast<std::size_t>(variant % 4), variant % 2 == 0);
        CAPTURE(cols);
        CAPTURE(variant);
        double worst = 0.0;
        for (std::size_t r = 0; r < rows; ++r) {
          const auto expected = reference(&in[r * cols], cols, weight, bias, p);
          for (std::size_t i = 0; i < cols; ++i) {
            const double error = std::abs(double{out[r * cols + i]} - expected[i]) / allowed(type, expected[i]);
            worst = error <= worst ? worst : error;
          }
        }
        CHECK(worst <= 1.0);
        ++variant;
      }
    }
  }
}

// rule: cuda.row-stands-alone
TEST_CASE("a row's norm has the same bits alone, among others and at another alignment") {
  const std::size_t cols = 514;
  const Values in = normal(4 * cols, 1), weight = normal(cols, 2);
  const Values all = run(in, 4, cols, weight, {}, {}, DType::f32, 0, false);
  const Values spread = run(in, 4, cols, weight, {}, {}, DType::f32, 3, false);
  const Values alone =
      run(Values(in.begin() + 2 * cols, in.begin() + 3 * cols), 1, cols, weight, {}, {}, DType::f32, 0, false);
  CHECK(std::memcmp(all.data(), spread.data(), all.size() * sizeof(float)) == 0);
  CHECK(std::memcmp(&all[2 * cols], alone.data(), cols * sizeof(float)) == 0);
}

TEST_CASE("head norms, in place, with heads that fill no block of warps") {
  for (const std::size_t head_dim : {16u, 80u, 128u}) {
    const std::size_t heads = 5, rows = 3, gap = 7, stride = heads * head_dim + gap;
    Values x = normal(rows * stride, 4);
    const Values weight = normal(head_dim, 5);
    const NormParams p{NormKind::rms, 1e-6f, 1.0f};
    const DeviceArray<float> device(x), device_weight(weight);
    HeadNormArgs args;
    args.x = device.data();
    args.stride = static_cast<std::int64_t>(stride);
    args.weight = device_weight.data();
    args.rows = static_cast<std::int32_t>(rows);
    args.heads = static_cast<std::int32_t>(heads);
    args.head_dim = static_cast<std::int32_t>(head_dim);
    args.params = p;
    cuda_test::check(launch_head_norm(args, nullptr));
    cuda_test::finish();
    const Values out = device.download();
    double worst = 0.0;
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t h = 0; h < heads; ++h) {
        const std::size_t at = r * stride + h * head_dim;
        const auto expected = reference(&x[at], head_dim, weight, {}, p);
        for (std::size_t i = 0; i < head_dim; ++i)
          worst = std::max(worst, std::abs(double{out[at + i]} - expected[i]) / allowed(DType::f32, expected[i]));
      }
      for (std::size_t i = heads * head_dim; i < stride; ++i) REQUIRE(out[r * stride + i] == x[r * stride + i]);
    }
    CHECK(worst <= 1.0);
  }
}

}  // namespace
}  // namespace pagedcore::cuda
