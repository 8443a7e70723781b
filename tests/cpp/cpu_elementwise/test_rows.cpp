#include <doctest/doctest.h>

#include <cmath>

#include "common.hpp"

using namespace test;

TEST_CASE("embed returns the scaled rows of the table, on every instruction set and type") {
  const std::int64_t vocab = 70, k = 52;
  std::vector<float> table = random_values(static_cast<std::size_t>(vocab * k), 1);
  for (float& v : table)  // exact in both types
    v = std::bit_cast<float>(std::bit_cast<std::uint32_t>(v) & 0xffff0000u);
  const HostTensor host{DType::f32, {vocab, k}, 2, std::as_bytes(std::span(table))};
  ThreadPool pool(2);
  std::vector<TokenId> tokens(700);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>(i * 37 % 70);
  for (const Isa isa : isas()) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const auto weight = pack_weight(pool, {&host, 1}, PackKind::stacked, isa, dtype);
      for (const float scale : {1.0f, 3.0f}) {
        Matrix out(700, k, 2, 4);
        embed(pool, out.tensor, *weight, tokens, scale);
        bool same = true;
        for (std::int64_t r = 0; r < 700; ++r)
          for (std::int64_t i = 0; i < k; ++i)
            same = same &&
                   out.at(r, i) == scale * table[static_cast<std::size_t>(tokens[static_cast<std::size_t>(r)] * k + i)];
        CHECK(same);
        CHECK(out.gaps_untouched());
      }
      Matrix out(2, k, 3);
      const std::vector<float> before = out.storage;
      const TokenId above[] = {0, 70}, below[] = {0, -1}, three[] = {0, 1, 2};
      CHECK_THROWS_WITH_AS(embed(pool, out.tensor, *weight, above, 1.0f),
                           "embed: token 70 of row 1 is outside the vocabulary [0, 70)", InvalidArgument);
      CHECK_THROWS_AS(embed(pool, out.tensor, *weight, below, 1.0f), InvalidArgument);
      CHECK_THROWS_AS(embed(pool, out.tensor, *weight, three, 1.0f), InvalidArgument);
      CHECK(out.storage == before);
    }
  }
}

TEST_CASE("gather_rows copies any element type, strides and repeats included") {
  ThreadPool pool(2);
  const std::int32_t indices[] = {3, 0, 3, 9, 1};
  Matrix in(10, 33, 1, 2), out(5, 33, 2, 7);
  gather_rows(pool, out.tensor, in.tensor, indices);
  for (std::int64_t i = 0; i < 5; ++i)
    CHECK(same_bits(out.storage.data() + i * out.tensor.stride, in.storage.data() + indices[i] * in.tensor.stride, 33));
  CHECK(out.gaps_untouched());

  // The same memory as rows of 16-bit elements.
  const Tensor in16{in.storage.data(), DType::bf16, 10, 69, 70}, out16{out.storage.data(), DType::bf16, 5, 69, 80};
  gather_rows(pool, out16, in16, indices);
  for (std::int64_t i = 0; i < 5; ++i)
    CHECK(std::memcmp(out16.slice_rows(i, 1).data, in16.slice_rows(indices[i], 1).data, 69 * 2) == 0);

  const std::int32_t outside[] = {0, 1, 2, 3, 10}, negative[] = {0, 1, 2, 3, -1};
  CHECK_THROWS_AS(gather_rows(pool, out.tensor, in.tensor, outside), InvalidArgument);
  CHECK_THROWS_AS(gather_rows(pool, out.tensor, in.tensor, negative), InvalidArgument);
  CHECK_THROWS_AS(gather_rows(pool, out.tensor.head(4), in.tensor, indices), InvalidArgument);
  CHECK_THROWS_AS(gather_rows(pool, out16, in.tensor, indices), InvalidArgument);
}

TEST_CASE("scale_softcap") {
  ThreadPool pool(2);
  const Matrix before(40, 997, 1, 3);
  Matrix x(40, 997, 1, 3), scaled(40, 997, 1, 3);
  scale_softcap(pool, x.tensor, 3.0f, 2.0f);
  scale_softcap(pool, scaled.tensor, 0.5f, 0.0f);
  double worst = 0;
  bool exact = true;
  for (std::int64_t r = 0; r < 40; ++r) {
    for (std::int64_t i = 0; i < 997; ++i) {
      worst = std::max(worst, std::abs(x.at(r, i) - 2.0 * std::tanh(3.0 * before.at(r, i) / 2.0)));
      exact = exact && scaled.at(r, i) == 0.5f * before.at(r, i);
    }
  }
  CHECK(worst < 1e-6);
  CHECK(exact);
  CHECK(x.gaps_untouched());
}
