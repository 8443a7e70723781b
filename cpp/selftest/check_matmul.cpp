// Products: every epilogue, weights of every kind, few rows and many.
#include <algorithm>
#include <array>
#include <cmath>

#include "selftest/checks.hpp"
#include "selftest/matrix.hpp"

namespace pagedcore::selftest {
namespace {

struct Shape {
  std::int64_t n, k;
  std::vector<std::int64_t> rows;  // of the inputs, one after the other
  float spread;                    // of the weights: about 1 / sqrt(k), so that results are unit-normal
  std::vector<std::int64_t> leaf_ends = {};
};

/// Odd sizes; more rows than a tile and fewer.
Shape small_shape(bool quick) {
  return {40, 72, quick ? std::vector<std::int64_t>{1, 5, 35} : std::vector<std::int64_t>{1, 2, 5, 16, 33, 70, 130},
          0.125f};
}

/// Leaves of many sizes, none a multiple of 32.
std::vector<std::int64_t> some_leaves(std::int64_t k) {
  std::vector<std::int64_t> ends;
  for (std::int64_t end = 8; end < k; end += 8 + end / 2) ends.push_back(end);
  ends.push_back(k);
  return ends;
}

std::vector<float> product(Backend& b, const Shape& s, const Epilogue& kind, bool biased, DType result) {
  const bool gated = kind.kind == Epilogue::Kind::gated;
  const std::int64_t out_rows = gated ? 2 * s.n : s.n;
  const HostMatrix first(DType::f32, s.n, s.k, normal_values(s.n * s.k, 1, s.spread)),
      second(DType::f32, s.n, s.k, normal_values(s.n * s.k, 2, s.spread));
  std::vector<HostTensor> parts{first.tensor()};
  if (gated) parts.push_back(second.tensor());
  const auto weight = b.pack(parts, {gated ? PackKind::gated : PackKind::stacked, s.leaf_ends});
  const Matrix bias(b, DType::f32, 1, out_rows, normal_values(out_rows, 3));
  Epilogue epilogue = kind;
  if (biased) epilogue.bias = &bias.tensor();
  std::vector<float> all;
  for (const std::int64_t m : s.rows) {
    const Matrix in(b, b.compute_dtype(), m, s.k, normal_values(m * s.k, 4)),
        out(b, result == DType::f32 ? result : b.compute_dtype(), m, s.n, normal_values(m * s.n, 5));
    b.matmul(out.tensor(), in.tensor(), *weight, epilogue);
    const std::vector<float> values = out.values();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

/// Blocks of 32 weights: a scale of 2^-10, then numbers.
std::vector<std::byte> q8_0(std::int64_t count) {  // as GGUF files have them
  std::mt19937 random(6);
  std::vector<std::byte> bytes(bytes_of(DType::q8_0, count));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::size_t place = i % 34;
    bytes[i] = place == 0   ? std::byte{0x00}
               : place == 1 ? std::byte{0x14}
                            : static_cast<std::byte>(random() % 255 - 127);
  }
  return bytes;
}

/// Attention's three matrices, each in another type of a checkpoint, as one weight.
std::vector<float> mixed_types(Backend& b, std::array<DType, 3> types) {
  const std::int64_t k = 96, m = 3;
  const std::array<std::int64_t, 3> n{48, 16, 17};
  std::vector<HostMatrix> matrices;
  for (std::size_t i = 0; i < 3; ++i) {
    if (types[i] == DType::q8_0) {
      matrices.emplace_back(types[i], n[i], k, q8_0(n[i] * k));
    } else {
      matrices.emplace_back(types[i], n[i], k, normal_values(n[i] * k, static_cast<unsigned>(7 + i), 0.125f));
    }
  }
  std::vector<HostTensor> parts;
  for (const HostMatrix& matrix : matrices) parts.push_back(matrix.tensor());
  const auto weight = b.pack(parts, PackKind::stacked);
  const Matrix in(b, b.compute_dtype(), m, k, normal_values(m * k, 10)), out(b, DType::f32, m, 81);
  b.matmul(out.tensor(), in.tensor(), *weight, {});
  return out.values();
}

/// Random blocks of a type whose numbers are 1/4 large at most, and not all tiny.
std::vector<std::byte> random_blocks(DType dtype, std::int64_t count) {
  const DTypeInfo& type = info(dtype);
  std::mt19937 random(13);
  std::vector<std::byte> bytes, block(type.block_bytes);
  for (std::int64_t made = 0; made < count;) {
    for (std::byte& b : block) b = static_cast<std::byte>(random());
    float largest = 0.0f;
    for (const float v : decoded(block, dtype)) largest = std::isfinite(v) ? std::max(largest, std::fabs(v)) : 1.0f;
    if (largest < 0.05f || largest > 0.25f) continue;
    bytes.insert(bytes.end(), block.begin(), block.end());
    made += type.block_elements;
  }
  return bytes;
}

/// A few rows of every narrow type that checkpoints have, as one weight.
std::vector<float> narrow_types(Backend& b) {
  const std::int64_t n = 5, k = 256;
  std::vector<HostMatrix> matrices;
  for (const DType type : {DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0, DType::q2_k, DType::q3_k,
                           DType::q4_k, DType::q5_k, DType::q6_k, DType::mxfp4, DType::int4_g32, DType::int4_g128,
                           DType::int8_g128, DType::f8_g128, DType::f8_e4m3})
    matrices.emplace_back(type, n, k, random_blocks(type, n * k));
  std::vector<HostTensor> parts;
  for (const HostMatrix& matrix : matrices) parts.push_back(matrix.tensor());
  const auto weight = b.pack(parts, PackKind::stacked);
  const Matrix in(b, b.compute_dtype(), 3, k, normal_values(3 * k, 14)),
      out(b, DType::f32, 3, n * static_cast<std::int64_t>(parts.size()));
  b.matmul(out.tensor(), in.tensor(), *weight, {});
  return out.values();
}

/// Weights of one block format each, which a backend may keep as they are, for few rows and for many.
std::vector<float> block_formats(Backend& b) {
  const std::int64_t n = 32, k = 256;
  std::vector<float> all;
  for (const DType type :
       {DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0, DType::q2_k, DType::q3_k, DType::q4_k,
        DType::q5_k, DType::q6_k, DType::mxfp4, DType::int4_g32, DType::int4_g128, DType::int8_g128, DType::f8_g128}) {
    const HostMatrix matrix(type, n, k, random_blocks(type, n * k));
    const HostTensor part = matrix.tensor();
    const auto weight = b.pack({&part, 1}, PackKind::stacked);
    for (const std::int64_t m : {1, 17}) {
      const Matrix in(b, b.compute_dtype(), m, k, normal_values(m * k, 15)), out(b, DType::f32, m, n);
      b.matmul(out.tensor(), in.tensor(), *weight, {});
      const std::vector<float> values = out.values();
      all.insert(all.end(), values.begin(), values.end());
    }
  }
  return all;
}

/// Each of `rows` alone and all together.
Checks::Pair alone_and_together(Backend& b, std::int64_t rows, std::int64_t k,
                                const std::vector<std::int64_t>& leaves) {
  const std::int64_t n = 40;
  const HostMatrix host(DType::f32, n, k, normal_values(n * k, 11, 0.0625f));
  const HostTensor part = host.tensor();
  const auto weight = b.pack({&part, 1}, {PackKind::stacked, leaves});
  const Matrix in(b, b.compute_dtype(), rows, k, normal_values(rows * k, 12)), out(b, DType::f32, rows, n);
  b.matmul(out.tensor(), in.tensor(), *weight, {});
  Checks::Pair pair;
  pair.got = encoded(out.values(), DType::f32);
  const Matrix single(b, DType::f32, rows, n);
  for (std::int64_t r = 0; r < rows; ++r) {
    b.matmul(single.tensor().slice_rows(r, 1), in.tensor().slice_rows(r, 1), *weight, {});
  }
  pair.want = encoded(single.values(), DType::f32);
  return pair;
}

}  // namespace

void check_matmul(Checks& checks) {
  using Kind = Epilogue::Kind;
  const Shape shape = small_shape(checks.quick());
  const DType narrow = checks.compute_dtype();
  const auto add = [&](const char* what, const Shape& s, Epilogue e, bool biased, DType result) {
    checks.compare("matmul", what, result, [=](Backend& b) { return product(b, s, e, biased, result); });
  };
  add("store", shape, {Kind::store}, false, DType::f32);
  add("store, with bias", shape, {Kind::store}, true, DType::f32);
  add("accumulate, with bias", shape, {Kind::accumulate}, true, DType::f32);
  add("gated, silu", shape, {Kind::gated, Activation::silu}, false, DType::f32);
  add("gated, gelu, with bias", shape, {Kind::gated, Activation::gelu}, true, DType::f32);
  add("gated, silu, to the compute type", shape, {Kind::gated, Activation::silu}, false, narrow);
  add("activated, gelu_tanh", shape, {Kind::activated, Activation::gelu_tanh}, false, DType::f32);
  add("activated, relu, to the compute type", shape, {Kind::activated, Activation::relu}, true, narrow);
  checks.compare_optional("matmul", "gated, clamped_swiglu, with bias", tolerance_of(DType::f32), [=](Backend& b) {
    const Epilogue clamped{Kind::gated, Activation::clamped_swiglu, nullptr, nullptr, {1.702f, 0.75f}};
    return product(b, shape, clamped, true, DType::f32);
  });
  Shape leaves = shape;
  leaves.leaf_ends = some_leaves(leaves.k);
  add("accumulate, with bias, over leaves of k", leaves, {Kind::accumulate}, true, DType::f32);
  if (!checks.quick()) {
    add("store, k = 4096", {513, 4096, {1, 9, 64}, 0.015625f}, {Kind::store}, false, DType::f32);
    add("gated, k = 1000", {1000, 1000, {3, 129}, 0.03125f}, {Kind::gated}, false, DType::f32);
  }
  checks.compare("matmul", "weights from f32, f16, bf16", DType::f32, [](Backend& b) {
    return mixed_types(b, {DType::f32, DType::f16, DType::bf16});
  });
  checks.compare("matmul", "weights from q8_0, bf16, q8_0", DType::f32, [](Backend& b) {
    return mixed_types(b, {DType::q8_0, DType::bf16, DType::q8_0});
  });
  // These are no numbers that a compute type holds exactly: what it rounds them to may differ as its results may.
  checks.compare("matmul", "weights from f8_e4m3 and q4_0 to f8_g128", narrow, narrow_types);
  checks.compare("matmul", "weights of one block format each", narrow, block_formats);
  checks.exact("matmul", "same bits for a row alone and in a batch", [&](Backend& b) {
    const std::int64_t rows = checks.quick() ? 35 : 200, k = checks.quick() ? 264 : 1032;
    Checks::Pair pair = alone_and_together(b, rows, k, {});
    const Checks::Pair over_leaves = alone_and_together(b, rows, k, some_leaves(k));
    pair.got.insert(pair.got.end(), over_leaves.got.begin(), over_leaves.got.end());
    pair.want.insert(pair.want.end(), over_leaves.want.begin(), over_leaves.want.end());
    return pair;
  });
}

}  // namespace pagedcore::selftest
