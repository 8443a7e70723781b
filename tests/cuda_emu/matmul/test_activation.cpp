// The activation functions by themselves, at the ends of their range too.
#include <doctest/doctest.h>

#include <cfloat>
#include <cmath>
#include <limits>
#include <vector>

#include "device_array.hpp"
#include "kernels/activation.cuh"

namespace pagedcore::cuda {
namespace {

__global__ void activate_all(float* x, Activation activation) { x[threadIdx.x] = activate(activation, x[threadIdx.x]); }

double reference(Activation activation, double x) {
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

TEST_CASE("activations between their limits, and the limits themselves; a NaN stays one") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> ends{-kInfinity, -FLT_MAX, -1e30f, -1000.0f, -88.5f, -87.0f, kInfinity, FLT_MAX};
  std::vector<float> values = ends;
  for (float x = -20.0f; x <= 20.0f; x += 0.37f) values.push_back(x);
  values.insert(values.end(), {0.0f, -0.0f, FLT_MIN});
  const std::size_t numbers = values.size();
  values.push_back(std::nanf(""));
  for (const Activation activation : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu}) {
    CAPTURE(static_cast<int>(activation));
    const cuda_test::DeviceArray<float> device(values);
    PC_LAUNCH(activate_all, dim3(1), dim3(static_cast<unsigned>(values.size())), 0, nullptr, device.data(), activation);
    cuda_test::finish();
    const std::vector<float> got = device.download();
    for (std::size_t i = 0; i < numbers; ++i) {
      CAPTURE(values[i]);
      // 0 where x goes to -infinity, x where it goes to infinity.
      const bool low = values[i] <= -87.0f, high = values[i] >= 1e30f;
      const double want = low ? 0.0 : high ? double{values[i]} : reference(activation, double{values[i]});
      if (high)
        CHECK(got[i] == values[i]);
      else
        CHECK(std::abs(double{got[i]} - want) <= 2e-6 * (1.0 + std::abs(want)));
    }
    if (activation != Activation::relu) CHECK(std::isnan(got[numbers]));
  }
}

}  // namespace
}  // namespace pagedcore::cuda
