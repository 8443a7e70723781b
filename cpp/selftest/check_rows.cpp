// Operations on single rows. Their results in f32 are exact but for the order of sums.
#include "selftest/checks.hpp"
#include "selftest/matrix.hpp"

namespace pagedcore::selftest {
namespace {

constexpr std::int64_t kRows = 9;

void append(std::vector<float>& all, const std::vector<float>& more) {
  all.insert(all.end(), more.begin(), more.end());
}

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

/// `own`: each head has weights, and a bias, of its own.
Checks::Run head_norm(const NormParams& params, bool own) {
  return [=](Backend& b) {
    std::vector<float> all;
    for (const std::int32_t dim : {64, 80, 256}) {
      const std::int64_t cols = 3 * std::int64_t{dim}, weights = own ? cols : dim;
      const Matrix x(b, DType::f32, kRows, cols, normal_values(kRows * cols, 6)),
          weight(b, DType::f32, 1, weights, normal_values(weights, 7)),
          bias(b, DType::f32, 1, weights, normal_values(weights, 11));
      b.head_norm(x.tensor(), dim, weight.tensor(), own ? &bias.tensor() : nullptr, params);
      append(all, x.values());
    }
    return all;
  };
}

std::vector<float> add(Backend& b) {
  std::vector<float> all;
  for (const std::int64_t cols : {101, 5003}) {
    const Matrix x(b, DType::f32, kRows, cols, normal_values(kRows * cols, 12)),
        y(b, DType::f32, kRows, cols, normal_values(kRows * cols, 13));
    b.add(x.tensor(), y.tensor(), 0.25f);
    append(all, x.values());
  }
  return all;
}

Checks::Run convert(DType result) {
  return [=](Backend& b) {
    std::vector<float> all;
    for (const std::int64_t cols : {101, 5003}) {
      const Matrix in(b, DType::f32, kRows, cols, normal_values(kRows * cols, 14));
      const Matrix out(b, result_type(b, result), kRows, cols);
      b.convert(out.tensor(), in.tensor());
      append(all, out.values());
    }
    return all;
  };
}

std::vector<float> scale_softcap(Backend& b) {
  std::vector<float> all;
  for (const std::int64_t cols : {101, 5003}) {
    for (const float softcap : {0.0f, 3.0f}) {
      const Matrix x(b, DType::f32, kRows, cols, normal_values(kRows * cols, 8));
      b.scale_softcap(x.tensor(), 2.5f, softcap);
      append(all, x.values());
    }
  }
  return all;
}

/// Bytes that were foretold, and those that packed weights and KV storages have.
Checks::Pair sizes(Backend& b) {
  std::vector<std::size_t> got, want;
  for (const PackKind kind : {PackKind::stacked, PackKind::gated}) {
    const std::int64_t n = 37, k = 72;
    const HostMatrix part(DType::bf16, n, k, normal_values(n * k, 10));
    const std::vector<HostTensor> parts(kind == PackKind::gated ? 2 : 1, part.tensor());
    got.push_back(b.packed_bytes(n, k, kind));
    want.push_back(b.pack(parts, kind)->bytes());
  }
  const KvShape shape{3, 2, 64, 16, b.compute_dtype()};
  got.push_back(b.kv_block_bytes(shape));
  want.push_back(b.allocate_kv(shape, 2)->block_bytes());
  const auto bytes = [](const std::vector<std::size_t>& numbers) {
    const auto all = std::as_bytes(std::span(numbers));
    return std::vector<std::byte>(all.begin(), all.end());
  };
  return {bytes(got), bytes(want)};
}

/// A table of 50 rows, and a batch of two sequences.
std::vector<float> embedded(Backend& b, const std::function<void(const Tensor&, const Weight&, const Batch&)>& run) {
  const std::int64_t vocab = 50, cols = 72;
  const HostMatrix table(DType::f32, vocab, cols, normal_values(vocab * cols, 9));
  const HostTensor part = table.tensor();
  const auto packed = b.pack({&part, 1}, PackKind::stacked);
  const std::vector<TokenId> tokens{0, 49, 7, 7, 1, 20, 33, 48, 16};
  const std::vector<TokenRange> ranges{{0, 4, 0, 0}, {4, 5, 2, 1}};
  const std::vector<BlockId> tables{BlockId{1}, BlockId{0}};
  const auto batch = b.prepare({tokens, ranges, tables, 1}, 16);
  const Matrix out(b, DType::f32, kRows, cols);
  run(out.tensor(), *packed, *batch);
  return out.values();
}

std::vector<float> embed(Backend& b) {
  return embedded(
      b, [&](const Tensor& out, const Weight& table, const Batch& batch) { b.embed(out, table, batch, 0.5f); });
}

std::vector<float> embed_positions(Backend& b) {
  return embedded(
      b, [&](const Tensor& out, const Weight& table, const Batch& batch) { b.embed_positions(out, table, batch, 3); });
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
  checks.compare("head_norm", "rms, with weight offset", DType::f32, head_norm({NormKind::rms, 1e-6f, 1.0f}, false));
  checks.compare("head_norm", "layer, weights of each head", DType::f32, head_norm({NormKind::layer, 1e-5f}, true));
  checks.compare("add", "scaled", DType::f32, add);
  checks.compare("convert", "to the compute type", narrow, convert(narrow));
  checks.compare("convert", "a copy", DType::f32, convert(DType::f32));
  checks.exact("packed_bytes, kv_block_bytes", "what is then held", sizes);
  checks.compare("pack, prepare, embed", "tokens of two sequences", DType::f32, embed);
  checks.compare("embed_positions", "positions of two sequences", DType::f32, embed_positions);
}

}  // namespace pagedcore::selftest
