#include "matmul_case.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <sstream>

#include "device_array.hpp"
#include "narrow_types.hpp"

namespace pagedcore::cuda {
namespace {

using cuda_test::DeviceArray;
using Random = std::mt19937;

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// One row of weights of about variance 1 / k, on the grid of its format.
void draw_row(const MatmulCase& c, Random& random, float* row) {
  const float size = 1.0f / std::sqrt(static_cast<float>(c.k));
  const auto whole = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  const int width = c.format == WeightFormat::int8_row ? c.k : c.k_groups_per_scale * kGroupK;
  if (c.format == WeightFormat::native || c.format == WeightFormat::plain) {
    std::normal_distribution<float> normal(0.0f, size);
    for (int i = 0; i < c.k; ++i) row[i] = rounded(c.type, normal(random));
    return;
  }
  for (int first = 0; first < c.k; first += width) {
    const int last = std::min(first + width, c.k);
    const bool small = c.format == WeightFormat::int4_group;
    const float spread = size * static_cast<float>(whole(50, 150)) / 100.0f;
    float scale = rounded(c.type, spread / (small ? 4.6f : 73.0f));
    if (c.exact_scales) scale = std::exp2(std::round(std::log2(scale)));
    const int zero = small ? whole(0, 15) : 0;
    for (int i = first; i < last; ++i)
      row[i] = scale * static_cast<float>(small ? whole(0, 15) - zero : whole(-127, 127));
    // The ends of the range, so that the quantizer finds the grid.
    const auto place = [&] { return whole(first, last - 1); };
    if (small && last - first > 1) {
      const int low = place();
      int high = place();
      while (high == low) high = place();
      row[low] = scale * static_cast<float>(0 - zero);
      row[high] = scale * static_cast<float>(15 - zero);
    } else {
      row[place()] = scale * static_cast<float>(small ? 15 - zero : 127);
    }
  }
}

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::silu:
      return x / (1.0 + std::exp(-x));
    case Activation::gelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::relu:
      return std::max(x, 0.0);
    case Activation::clamped_swiglu:
      break;  // not on this device
  }
  return x;
}

}  // namespace

std::string MatmulCase::text() const {
  std::ostringstream s;
  s << "leaves " << leaf_ends.size() << " m " << m << " n " << n << " k " << k << " " << info(type).name << " format "
    << static_cast<int>(format) << " groups/scale " << k_groups_per_scale << " finish " << static_cast<int>(finish)
    << " activation " << static_cast<int>(activation) << " bias " << bias << " narrow " << narrow_out << " gaps "
    << in_gap << ", " << out_gap << " block tiles " << block_tiles;
  return s.str();
}

MatmulProblem::MatmulProblem(const MatmulCase& c) : c_(c) {
  const bool gated = c.finish == Epilogue::Kind::gated;
  spec_ = {c.n, c.k, gated ? PackKind::gated : PackKind::stacked, c.format, c.type, c.k_groups_per_scale, c.leaf_ends};
  const int rows = gated ? 2 * c.n : c.n;
  Random random(c.seed);
  std::normal_distribution<float> normal;
  in_.resize(index(c.m) * index(c.k));
  for (float& x : in_) x = rounded(c.type, normal(random));
  weights_.resize(index(rows) * index(c.k));
  for (int row = 0; row < rows; ++row) draw_row(c, random, &weights_[index(row) * index(c.k)]);
  if (c.bias) bias_.resize(index(rows));
  for (float& x : bias_) x = normal(random);
  before_.resize(index(c.m) * index(c.n));
  for (float& x : before_) x = normal(random);
}

std::vector<std::vector<float>> MatmulProblem::run(const std::vector<int>& order, std::int32_t block_tiles) const {
  const auto launch = [&](MatmulArgs args) {
    args.block_tiles = block_tiles != 0 ? block_tiles : c_.block_tiles;
    cuda_test::check(launch_matmul(args, c_.type, c_.format, nullptr));
  };
  return run_by(launch, order);
}

std::vector<std::vector<float>> MatmulProblem::run_by(const std::function<void(const MatmulArgs&)>& launch,
                                                      const std::vector<int>& order) const {
  std::vector<int> rows = order;
  if (rows.empty()) {
    rows.resize(index(c_.m));
    std::iota(rows.begin(), rows.end(), 0);
  }
  const std::size_t m = rows.size(), n = index(c_.n), k = index(c_.k);
  // No gap follows the last row. What lies between rows is NaN in the input, and must stay in the output.
  const std::size_t in_stride = k + index(c_.in_gap), out_stride = n + index(c_.out_gap);
  std::vector<std::uint16_t> in((m - 1) * in_stride + k, nan_of(c_.type));
  for (std::size_t r = 0; r < m; ++r)
    for (std::size_t i = 0; i < k; ++i) in[r * in_stride + i] = narrow(c_.type, in_[index(rows[r]) * k + i]);

  std::vector<std::byte> packed(spec_.weight_bytes()), scales(spec_.scale_bytes());
  pack_matrix(
      spec_,
      [&](std::int64_t row, std::span<float> values) { std::copy_n(&weights_[index(row) * k], k, values.begin()); },
      packed, scales, one_after_the_other);

  const DeviceArray<std::uint16_t> device_in(in);
  const DeviceArray<std::byte> device_weights(packed), device_scales(scales);
  const DeviceArray<float> device_bias(bias_);
  const std::size_t out_size = (m - 1) * out_stride + n;
  constexpr float kMark = -77.0f;  // exact in every type
  std::vector<float> wide(c_.narrow_out ? 0 : out_size, kMark);
  std::vector<std::uint16_t> narrow_values(c_.narrow_out ? out_size : 0, narrow(c_.type, kMark));
  if (c_.finish == Epilogue::Kind::accumulate)
    for (std::size_t r = 0; r < m; ++r) std::copy_n(&before_[index(rows[r]) * n], n, &wide[r * out_stride]);
  const DeviceArray<float> device_wide(wide);
  const DeviceArray<std::uint16_t> device_narrow(narrow_values);

  MatmulArgs args;
  args.in = device_in.data();
  args.in_stride = static_cast<std::int64_t>(in_stride);
  args.m = static_cast<std::int32_t>(m);
  args.k = c_.k;
  args.n = c_.n;
  args.weights = device_weights.data();
  args.scales = device_scales.data();
  args.k_groups_per_scale = c_.k_groups_per_scale;
  args.bias = c_.bias ? device_bias.data() : nullptr;
  args.out = c_.narrow_out ? static_cast<void*>(device_narrow.data()) : device_wide.data();
  args.out_stride = static_cast<std::int64_t>(out_stride);
  args.out_is_narrow = c_.narrow_out;
  args.finish = c_.finish;
  args.activation = c_.activation;
  if (c_.leaf_ends.size() > 1)
    args.leaves = {reinterpret_cast<const MatmulLeaf*>(device_weights.data() + spec_.tile_bytes_of_all()),
                   static_cast<std::int32_t>(c_.leaf_ends.size()), static_cast<std::int32_t>(spec_.groups()),
                   std::ranges::all_of(c_.leaf_ends, [](std::int64_t end) { return end % 8 == 0; })};
  launch(args);
  cuda_test::finish();

  std::vector<float> out;
  if (c_.narrow_out)
    for (const std::uint16_t bits : device_narrow.download()) out.push_back(widen(c_.type, bits));
  else
    out = device_wide.download();
  std::vector<std::vector<float>> result;
  for (std::size_t r = 0; r < m; ++r) {
    const auto begin = out.begin() + static_cast<std::ptrdiff_t>(r * out_stride);
    result.emplace_back(begin, begin + c_.n);
    for (std::size_t i = n; i < out_stride && r + 1 < m; ++i) REQUIRE(out[r * out_stride + i] == kMark);
  }
  return result;
}

void MatmulProblem::poison(int row) { in_[index(row) * index(c_.k)] = std::numeric_limits<float>::quiet_NaN(); }

MatmulProblem MatmulProblem::columns(std::int64_t first, std::int64_t end) const {
  MatmulProblem part = *this;
  part.c_.finish = Epilogue::Kind::store;
  part.c_.bias = part.c_.narrow_out = false;
  for (std::size_t i = 0; i < in_.size(); ++i) {
    const auto column = static_cast<std::int64_t>(i % index(c_.k));
    if (column < first || column >= end) part.in_[i] = 0.0f;
  }
  return part;
}

float MatmulProblem::before(int row, int output) const { return before_[index(row) * index(c_.n) + index(output)]; }

std::vector<double> MatmulProblem::reference(int row) const {
  const std::size_t n = index(c_.n), k = index(c_.k);
  const auto sum = [&](std::size_t output) {
    double total = c_.bias ? double{bias_[output]} : 0.0;
    for (std::size_t i = 0; i < k; ++i) total += double{in_[index(row) * k + i]} * double{weights_[output * k + i]};
    return total;
  };
  std::vector<double> out(n);
  for (std::size_t i = 0; i < n; ++i) {
    out[i] = sum(i);
    if (c_.finish == Epilogue::Kind::accumulate) out[i] += double{before_[index(row) * n + i]};
    if (c_.finish == Epilogue::Kind::activated) out[i] = activate(c_.activation, out[i]);
    if (c_.finish == Epilogue::Kind::gated) out[i] = activate(c_.activation, out[i]) * sum(n + i);
  }
  return out;
}

}  // namespace pagedcore::cuda
