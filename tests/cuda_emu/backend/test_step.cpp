// The operations of a step against the CPU backend, in bf16: weights, products, norms, embedding, rope, attention.
#include <cmath>

#include "harness.hpp"

using namespace cuda_test;

namespace {

constexpr float kTolerance = 2e-2f;  // bf16 on unit-normal data

void check_close(const std::vector<float>& got, const std::vector<float>& want, float scale = 1.0f) {
  REQUIRE(got.size() == want.size());
  float worst = 0.0f;
  for (std::size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::fabs(got[i] - want[i]));
  CHECK(worst <= kTolerance * scale);
}

HostTensor host(const std::vector<float>& values, std::int64_t rows, std::int64_t cols) {
  return {DType::f32, {rows, cols}, 2, std::as_bytes(std::span(values))};
}

std::unique_ptr<Backend> reference() { return make_cpu_backend({1, DType::bf16, "auto"}); }

}  // namespace

TEST_CASE("matrix products with every epilogue") {
  const auto cuda = make(), cpu = reference();
  const std::int64_t n = 40, k = 72;
  const std::vector<float> a = random_values(static_cast<std::size_t>(n * k), 1),
                           b = random_values(static_cast<std::size_t>(n * k), 2),
                           bias = random_values(static_cast<std::size_t>(2 * n), 3);
  for (const std::int64_t m : {1, 5, 70}) {
    const std::vector<float> in = random_values(static_cast<std::size_t>(m * k), 4),
                             out = random_values(static_cast<std::size_t>(m * n), 5);
    for (const auto kind :
         {Epilogue::Kind::store, Epilogue::Kind::accumulate, Epilogue::Kind::gated, Epilogue::Kind::activated}) {
      CAPTURE(m);
      CAPTURE(static_cast<int>(kind));
      const bool gated = kind == Epilogue::Kind::gated;
      const std::vector<HostTensor> parts =
          gated ? std::vector{host(a, n, k), host(b, n, k)} : std::vector{host(a, n, k)};
      const auto run = [&](Backend& backend) {
        const auto weight = backend.pack(parts, gated ? PackKind::gated : PackKind::stacked);
        CHECK(weight->bytes() == backend.packed_bytes(n, k, gated ? PackKind::gated : PackKind::stacked));
        const Matrix x(backend, DType::bf16, m, k, in), y(backend, DType::f32, m, n, out),
            w(backend, DType::f32, 1, gated ? 2 * n : n,
              std::vector<float>(bias.begin(), bias.begin() + (gated ? 2 * n : n)));
        backend.matmul(y.tensor, x.tensor, *weight, {kind, Activation::silu, &w.tensor});
        return y.values();
      };
      check_close(run(*cuda), run(*cpu), gated ? 40.0f : 9.0f);  // sums of 72 products, and products of two such sums
    }
  }
}

TEST_CASE("products over leaves of k: as on the CPU, up to 128 of them, and no table for an embedding") {
  const auto cuda = make(), cpu = reference();
  const auto form = [](std::int64_t leaves) {
    WeightForm made;
    for (std::int64_t i = 1; i <= leaves; ++i) made.leaf_ends.push_back(8 * i);
    return made;
  };
  const auto matrix = [](std::int64_t leaves) { return random_values(static_cast<std::size_t>(20 * 8 * leaves), 1); };
  for (const std::int64_t leaves : {2, 128}) {
    CAPTURE(leaves);
    const std::int64_t n = 20, k = 8 * leaves, m = 3;
    const std::vector<float> w = matrix(leaves), in = random_values(static_cast<std::size_t>(m * k), 2);
    const std::vector<HostTensor> parts{host(w, n, k)};
    const auto run = [&](Backend& backend) {
      const auto weight = backend.pack(parts, form(leaves));
      CHECK(weight->bytes() == backend.packed_bytes(n, k, form(leaves)));
      const Matrix x(backend, DType::bf16, m, k, in), y(backend, DType::f32, m, n);
      backend.matmul(y.tensor, x.tensor, *weight, {});
      return y.values();
    };
    check_close(run(*cuda), run(*cpu), std::sqrt(static_cast<float>(k)));  // sums of k products
  }
  const std::vector<float> w = matrix(129);
  const std::vector<HostTensor> parts{host(w, 20, 8 * 129)};
  CHECK_THROWS_WITH_AS(cuda->pack(parts, form(129)),
                       doctest::Contains("a weight of 129 leaves: the CUDA backend sums up to 128"), Unsupported);
  CHECK_THROWS_AS(static_cast<void>(cuda->packed_bytes(20, 8 * 129, form(129))), Unsupported);

  const std::vector<float> two = matrix(2);
  const auto table = cuda->pack(std::vector{host(two, 20, 16)}, form(2));
  const std::vector<TokenId> tokens{7};
  const std::vector<TokenRange> ranges{{0, 1, 0, 0}};
  const std::vector<BlockId> blocks{BlockId{0}};
  const auto batch = cuda->prepare({tokens, ranges, blocks, 1}, 16);
  const Matrix out(*cuda, DType::f32, 1, 16);
  CHECK_THROWS_WITH_AS(cuda->embed(out.tensor, *table, *batch, 1.0f), doctest::Contains("the table has leaves of k"),
                       InvalidArgument);
}

TEST_CASE("norms, embedding and softcap") {
  const auto cuda = make(), cpu = reference();
  const std::int64_t rows = 9, cols = 192, vocab = 50;
  const std::vector<float> x = random_values(static_cast<std::size_t>(rows * cols), 1),
                           w = random_values(static_cast<std::size_t>(cols), 2),
                           table = random_values(static_cast<std::size_t>(vocab * cols), 3);
  const auto run = [&](Backend& backend, int what) {
    const Matrix in(backend, DType::f32, rows, cols, x), weight(backend, DType::f32, 1, cols, w);
    const Matrix out(backend, DType::bf16, rows, cols), wide(backend, DType::f32, rows, cols);
    switch (what) {
      case 0:
        backend.norm(out.tensor, in.tensor, weight.tensor, nullptr, {});
        return out.values();
      case 1:
        backend.norm(wide.tensor, in.tensor, weight.tensor, &weight.tensor, {NormKind::layer, 1e-5f, 1.0f});
        return wide.values();
      case 2:
        backend.head_norm(in.tensor, 64, weight.tensor.slice_cols(0, 64), nullptr, {});
        return in.values();
      case 3:
        backend.scale_softcap(in.tensor, 2.0f, 3.0f);
        return in.values();
      default: {
        const std::vector<HostTensor> parts{host(table, vocab, cols)};
        const auto packed = backend.pack(parts, PackKind::stacked);
        const std::vector<TokenId> tokens{0, 49, 7, 7, 1, 2, 3, 4, 5};
        const std::vector<TokenRange> ranges{{0, 9, 0, 0}};
        const std::vector<BlockId> blocks{BlockId{0}};
        const auto batch = backend.prepare({tokens, ranges, blocks, 1}, 16);
        backend.embed(wide.tensor, *packed, *batch, 0.5f);
        return wide.values();
      }
    }
  };
  for (int what = 0; what < 5; ++what) {
    CAPTURE(what);
    check_close(run(*cuda, what), run(*cpu, what));
  }
}

TEST_CASE("rope, cache and attention over block tables, in two steps") {
  const auto cuda = make(), cpu = reference();
  const AttentionShape shape{4, 2, 64};
  const std::int32_t q_cols = 256, qkv_cols = 512;
  const std::vector<float> inv_freq = [] {
    std::vector<float> f;
    for (int i = 0; i < 32; ++i) f.push_back(std::pow(10000.0f, -static_cast<float>(i) / 32.0f));
    return f;
  }();
  const std::vector<BlockId> tables{BlockId{5}, BlockId{2}, BlockId{7}, BlockId{0},
                                    BlockId{9}};  // the second sequence's begins at entry 3
  const auto run = [&](Backend& backend) {
    const auto kv = backend.allocate_kv({2, 2, 64, 16, DType::bf16}, 10);
    const Matrix frequencies(backend, DType::f32, 1, 32, inv_freq);
    std::vector<float> all;
    const auto step = [&](std::vector<TokenRange> ranges, std::int32_t rows, unsigned seed) {
      const std::vector<TokenId> tokens(static_cast<std::size_t>(rows), 0);
      const auto batch = backend.prepare({tokens, ranges, tables, 1}, 16);
      const Matrix qkv(backend, DType::f32, rows, qkv_cols,
                       random_values(static_cast<std::size_t>(rows * qkv_cols), seed));
      const Matrix q(backend, DType::bf16, rows, q_cols), out(backend, DType::bf16, rows, q_cols);
      backend.rope_and_cache(q.tensor, qkv.tensor, *kv, 1, *batch, shape, {&frequencies.tensor, 1.0f});
      backend.attention(out.tensor, q.tensor, *kv, 1, *batch, {shape, 0.125f, 0.0f, 0});
      for (const float v : out.values()) all.push_back(v);
    };
    step({{0, 33, 0, 0}, {33, 5, 0, 3}}, 38, 1);  // two prompts
    step({{0, 1, 33, 0}, {1, 12, 5, 3}}, 13, 2);  // a decode and a chunk
    return all;
  };
  check_close(run(*cuda), run(*cpu));
}

TEST_CASE("arguments that do not fit") {
  const auto backend = make();
  const Matrix f32(*backend, DType::f32, 2, 8), bf16(*backend, DType::bf16, 2, 8), one(*backend, DType::f32, 1, 8);
  CHECK_THROWS_AS(backend->norm(bf16.tensor, bf16.tensor, one.tensor, nullptr, {}), InvalidArgument);
  CHECK_THROWS_AS(backend->norm(f32.tensor, f32.tensor, f32.tensor, nullptr, {}), InvalidArgument);
  CHECK_THROWS_AS(backend->head_norm(f32.tensor, 3, one.tensor, nullptr, {}), InvalidArgument);
  CHECK_THROWS_AS(backend->scale_softcap(bf16.tensor, 1.0f, 0.0f), InvalidArgument);
  const std::vector<TokenId> tokens{9};
  const std::vector<TokenRange> ranges{{0, 1, 0, 0}}, late{{1, 1, 0, 0}};
  const std::vector<BlockId> blocks{BlockId{3}};
  CHECK_THROWS_AS(backend->prepare({tokens, late, blocks, 1}, 16), InvalidArgument);
  const auto batch = backend->prepare({tokens, ranges, blocks, 1}, 16);
  const std::vector<float> table = random_values(5 * 8, 1);
  const std::vector<HostTensor> parts{host(table, 5, 8)};
  const auto packed = backend->pack(parts, PackKind::stacked);
  CHECK_THROWS_WITH_AS(backend->embed(one.tensor, *packed, *batch, 1.0f),
                       doctest::Contains("token 9 of row 0 is outside the vocabulary [0, 5)"), InvalidArgument);
  CHECK_THROWS_AS(backend->matmul(f32.tensor, f32.tensor, *packed, {}), InvalidArgument);
  const auto kv = backend->allocate_kv({1, 1, 64, 16, DType::bf16}, 3);
  const Matrix q(*backend, DType::bf16, 1, 64);
  CHECK_THROWS_WITH_AS(backend->attention(q.tensor, q.tensor, *kv, 0, *batch, {{1, 1, 64}}),
                       doctest::Contains("names block 3 of a KV storage that has 3"), InvalidArgument);
  CHECK_THROWS_AS(backend->attention(q.tensor, q.tensor, *kv, 1, *batch, {{1, 1, 64}}), InvalidArgument);
  const auto larger = backend->allocate_kv({1, 1, 64, 16, DType::bf16}, 4);
  CHECK_THROWS_WITH_AS(backend->attention(q.tensor, q.tensor, *larger, 0, *batch, {{1, 1, 64}, 1.0f, 0.0f, -1}),
                       doctest::Contains("a window of -1 tokens"), InvalidArgument);
  const std::vector<BlockCopy> copies{{BlockId{0}, BlockId{1}, 17}};
  CHECK_THROWS_WITH_AS(backend->copy_blocks(*kv, copies), doctest::Contains("17 tokens of block 0: a block holds 16"),
                       InvalidArgument);
}
