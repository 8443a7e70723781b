// Operations on single rows. Their results in f32 are exact but for the order of sums.
#include "selftest/checks.hpp"
#include "selftest/matrix.hpp"

namespace pagedcore::selftest {
namespace {

constexpr std::int64_t kRows = 9;

/// Results in f32, or in the type that the backend computes in.
DType result_type(Backend& backend, DType wanted) { return wanted == DType::f32 ? wanted : backend.compute_dtype(); }

Checks::Run norm(const NormParams& params, bool biased, std::int64_t cols, DType result) {
  return [=](Backend& b) {
    const Matrix in(b, DType::f32, kRows, cols, normal_values(kRows * cols, 1));
    const Matrix weight(b, DType::f32, 1, cols, normal_values(cols, 2)),
        bias(b, DType::f32, 1, cols, normal_values(cols, 3));
    const Matrix out(b, result_type(b, result), kRows, cols);
    b.norm(out.tensor(), in.tensor(), weight.tensor(), biased ? &bias.tensor() : nullptr, params);
    return out.values();
  };
}

std::vector<float> norm_in_place(Backend& b) {
  const std::int64_t cols = 75;
  const Matrix x(b, DType::f32, kRows, cols, normal_values(kRows * cols, 4)),
      weight(b, DType::f32, 1, cols, normal_values(cols, 5));
  b.norm(x.tensor(), x.tensor(), weight.tensor(), nullptr, {});
  return x.values();
}

std::vector<float> head_norm(Backend& b) {
  const Matrix x(b, DType::f32, kRows, 3 * 64, normal_values(kRows * 3 * 64, 6)),
      weight(b, DType::f32, 1, 64, normal_values(64, 7));
  b.head_norm(x.tensor(), 64, weight.tensor(), {NormKind::rms, 1e-6f, 1.0f});
  return x.values();
}

std::vector<float> scale_softcap(Backend& b) {
  std::vector<float> all;
  for (const float softcap : {0.0f, 3.0f}) {
    const Matrix x(b, DType::f32, kRows, 101, normal_values(kRows * 101, 8));
    b.scale_softcap(x.tensor(), 2.5f, softcap);
    const std::vector<float> values = x.values();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

std::vector<float> embed(Backend& b) {
  const std::int64_t vocab = 50, cols = 72;
  const HostMatrix table(DType::f32, vocab, cols, normal_values(vocab * cols, 9));
  const HostTensor part = table.tensor();
  const auto packed = b.pack({&part, 1}, PackKind::stacked);
  const std::vector<TokenId> tokens{0, 49, 7, 7, 1, 20, 33, 48, 16};
  const std::vector<TokenRange> ranges{{0, 4, 0, 0}, {4, 5, 2, 1}};
  const std::vector<std::uint32_t> tables{1, 0};
  const auto batch = b.prepare({tokens, ranges, tables, 1}, 16);
  const Matrix out(b, DType::f32, kRows, cols);
  b.embed(out.tensor(), *packed, *batch, 0.5f);
  return out.values();
}

}  // namespace

void check_rows(Checks& checks) {
  const DType narrow = checks.compute_dtype();
  const NormParams layer{NormKind::layer, 1e-5f, 1.0f};
  const std::int64_t large = checks.quick() ? 264 : 8192;
  checks.compare("scale_softcap", "with and without a cap", DType::f32, scale_softcap);
  checks.compare("norm", "rms, in place", DType::f32, norm_in_place);
  checks.compare("norm", "rms, to the compute type", narrow, norm({}, false, large, narrow));
  checks.compare("norm", "layer, with bias and weight offset", DType::f32, norm(layer, true, large, DType::f32));
  checks.compare("head_norm", "rms, with weight offset", DType::f32, head_norm);
  checks.compare("pack, prepare, embed", "tokens of two sequences", DType::f32, embed);
}

}  // namespace pagedcore::selftest
