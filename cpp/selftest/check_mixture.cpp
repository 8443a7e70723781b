// Routers and mixtures of experts, where the device serves them.
#include <cstring>

#include "selftest/checks.hpp"
#include "selftest/matrix.hpp"

namespace pagedcore::selftest {
namespace {

constexpr std::int64_t kRows = 21, kExperts = 5, kChosen = 2, kSize = 40, kInner = 96;

/// Routes in device memory, without gaps.
struct Routes {
  std::unique_ptr<Buffer> experts, shares;
  Routing routing;

  Routes(Backend& b, std::int64_t rows, bool gate)
      : experts(b.allocate(static_cast<std::size_t>(rows * kChosen) * 4)),
        shares(b.allocate(static_cast<std::size_t>(rows * (kChosen + gate)) * 4)),
        routing{{experts->data(), DType::i32, rows, kChosen, kChosen},
                {shares->data(), DType::f32, rows, kChosen + gate, kChosen + gate}} {}
};

Checks::Run route(const RouterParams& params) {
  return [=](Backend& b) {
    const std::int64_t columns = kExperts + params.gate;
    const Matrix logits(b, DType::f32, kRows, columns, normal_values(kRows * columns, 21));
    const Routes routes(b, kRows, params.gate);
    b.route(routes.routing, logits.tensor(), params);
    std::vector<std::int32_t> experts(static_cast<std::size_t>(kRows * kChosen));
    b.download(std::as_writable_bytes(std::span(experts)), routes.routing.experts);
    std::vector<float> all(experts.begin(), experts.end());
    std::vector<float> shares(static_cast<std::size_t>(kRows * routes.routing.shares.cols));
    b.download(std::as_writable_bytes(std::span(shares)), routes.routing.shares);
    all.insert(all.end(), shares.begin(), shares.end());
    return all;
  };
}

/// Of rows [first, first + count) of the same kRows, as bytes of f32.
std::vector<std::byte> mixture(Backend& b, std::int64_t first, std::int64_t count, bool biases) {
  std::vector<std::unique_ptr<Weight>> up, down;
  for (unsigned e = 0; e < kExperts; ++e) {
    const HostMatrix gate(DType::f32, kInner, kSize, normal_values(kInner * kSize, 30 + e, 0.125f)),
        other(DType::f32, kInner, kSize, normal_values(kInner * kSize, 40 + e, 0.125f)),
        back(DType::f32, kSize, kInner, normal_values(kSize * kInner, 50 + e, 0.125f));
    const HostTensor pair[]{gate.tensor(), other.tensor()}, one = back.tensor();
    up.push_back(b.pack(pair, PackKind::gated));
    down.push_back(b.pack({&one, 1}, {PackKind::stacked, {32, 64, kInner}}));
  }
  const DType narrow = b.compute_dtype();
  const Matrix in(b, narrow, kRows, kSize, normal_values(kRows * kSize, 22)),
      gathered(b, narrow, count * kChosen, kSize), inner(b, narrow, count * kChosen, kInner),
      out(b, DType::f32, count, kSize), logits(b, DType::f32, kRows, kExperts, normal_values(kRows * kExperts, 24));
  const Matrix up_bias(b, DType::f32, kExperts, 2 * kInner, normal_values(2 * kExperts * kInner, 25)),
      down_bias(b, DType::f32, kExperts, kSize, normal_values(kExperts * kSize, 26));
  const Routes routes(b, kRows, false);
  b.route(routes.routing, logits.tensor(), {});
  b.mixture(out.tensor(), in.tensor().slice_rows(first, count),
            {routes.routing.experts.slice_rows(first, count), routes.routing.shares.slice_rows(first, count)},
            {up, down, biases ? Activation::clamped_swiglu : Activation::silu, false, gathered.tensor(), inner.tensor(),
             SwigluParams{}, biases ? &up_bias.tensor() : nullptr, biases ? &down_bias.tensor() : nullptr});
  const std::vector<float> values = out.values();
  std::vector<std::byte> bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

}  // namespace

void check_mixture(Checks& checks) {
  if (!checks.serves_mixtures()) return;
  checks.compare("route", "softmax over all, renormalised, with a gate", DType::f32,
                 route({RouterKind::softmax, true, 1.5f, true}));
  checks.compare("route", "softmax over all", DType::f32, route({RouterKind::softmax}));
  checks.compare("route", "softmax over the chosen", DType::f32, route({RouterKind::chosen_softmax}));
  for (const bool biases : {false, true})
    checks.compare("mixture", biases ? "with biases and a clamped SwiGLU" : "5 experts, 2 a row, over leaves of k",
                   checks.compute_dtype(), [biases](Backend& b) {
                     const std::vector<std::byte> bytes = mixture(b, 0, kRows, biases);
                     std::vector<float> values(bytes.size() / sizeof(float));
                     std::memcpy(values.data(), bytes.data(), bytes.size());
                     return values;
                   });
  checks.exact("mixture", "same bits for a row alone and in a batch", [](Backend& b) {
    Checks::Pair pair;
    pair.want = mixture(b, 0, kRows, true);
    for (std::int64_t row = 0; row < kRows; ++row) {
      const std::vector<std::byte> alone = mixture(b, row, 1, true);
      pair.got.insert(pair.got.end(), alone.begin(), alone.end());
    }
    return pair;
  });
}

}  // namespace pagedcore::selftest
