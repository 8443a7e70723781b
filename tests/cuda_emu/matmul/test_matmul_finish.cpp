// The epilogue alone, of sums that another kernel has stored: bit for bit what that kernel's own epilogue makes of
// them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "device_array.hpp"
#include "matmul_case.hpp"

namespace pagedcore::cuda {
namespace {

using cuda_test::DeviceArray;
using Rows = std::vector<std::vector<float>>;

/// The sums of a case, those of a gated pair side by side.
Rows sums_of(const MatmulCase& c) {
  MatmulCase sums = c;
  if (c.finish == Epilogue::Kind::gated) sums.n = 2 * c.n;
  sums.finish = Epilogue::Kind::store;
  sums.bias = sums.narrow_out = false;
  return MatmulProblem(sums).run();
}

Rows finished(const MatmulCase& c, const Rows& sums) {
  std::vector<float> flat;
  for (const auto& row : sums) flat.insert(flat.end(), row.begin(), row.end());
  // They end where a page does, so that nothing can be read past them.
  constexpr std::size_t kPage = 4096 / sizeof(float);
  flat.insert(flat.begin(), (kPage - flat.size() % kPage) % kPage, 0.0f);
  const DeviceArray<float> device(flat);
  const std::size_t count = sums.size() * sums[0].size();
  return MatmulProblem(c).run_by([&](const MatmulArgs& args) {
    cuda_test::check(launch_matmul_finish(args, device.data() + device.size() - count, c.type, nullptr));
  });
}

bool same_bits(const Rows& a, const Rows& b) {
  return std::ranges::equal(a, b, [](const std::vector<float>& x, const std::vector<float>& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
  });
}

TEST_CASE("the epilogue of finished sums is the epilogue of a product") {
  int variant = 0;
  for (const Epilogue::Kind finish :
       {Epilogue::Kind::store, Epilogue::Kind::accumulate, Epilogue::Kind::gated, Epilogue::Kind::activated}) {
    for (const bool narrow_out : {false, true}) {
      for (const int n : {1, 24, 19, 1301}) {  // 1301: several sums a thread
        if (narrow_out && finish == Epilogue::Kind::accumulate) continue;
        MatmulCase c;
        c.m = 3;
        c.n = n;
        c.k = 8;
        c.finish = finish;
        c.narrow_out = narrow_out;
        c.activation = std::array{Activation::silu, Activation::gelu, Activation::gelu_tanh,
                                  Activation::relu}[static_cast<std::size_t>(variant % 4)];
        c.bias = variant % 3 != 0;
        c.type = variant % 2 == 0 ? DType::f16 : DType::bf16;
        c.out_gap = variant % 4;
        CAPTURE(c.text());
        CHECK(same_bits(finished(c, sums_of(c)), MatmulProblem(c).run()));
        ++variant;
      }
    }
  }
}

}  // namespace
}  // namespace pagedcore::cuda
