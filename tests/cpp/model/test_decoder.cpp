// The whole decoder against the float64 reference, and the promise that a row's bits depend on its sequence alone.
#include <doctest/doctest.h>

#include <cstring>

#include "pagedcore/error.hpp"
#include "reference.hpp"
#include "runner.hpp"

using namespace tiny;

namespace {

struct Family {
  const char* name;
  TinyModel (*make)();
};

constexpr Family kFamilies[] = {{"llama", llama}, {"biased", biased},         {"qwen2", qwen2},   {"qwen3", qwen3},
                                {"gpt", gpt},     {"gemma", gemma},           {"gemma3", gemma3}, {"olmo2", olmo2},
                                {"opt", opt},     {"bloom", bloom},           {"cohere", cohere}, {"olmo", olmo},
                                {"odd", odd},     {"open_llama", open_llama}, {"sinks", sinks}};

std::vector<std::vector<TokenId>> some_sequences(std::int32_t vocab) {
  return {random_tokens(37, vocab, 11), random_tokens(1, vocab, 12), random_tokens(22, vocab, 13)};
}

/// Root mean square of the difference over that of the reference.
double relative_error(const std::vector<std::vector<float>>& found, const Rows& expected) {
  double difference = 0, size = 0;
  REQUIRE(found.size() == expected.size());
  for (std::size_t p = 0; p < found.size(); ++p) {
    REQUIRE(found[p].size() == expected[p].size());
    for (std::size_t i = 0; i < found[p].size(); ++i) {
      difference += std::pow(found[p][i] - expected[p][i], 2);
      size += std::pow(expected[p][i], 2);
    }
  }
  return std::sqrt(difference / size);
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && !a.empty() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("every family agrees with the float64 reference on every instruction set") {
  for (const Family& family : kFamilies) {
    const TinyModel tiny = family.make();
    const auto sequences = some_sequences(tiny.d.vocab_size);
    std::vector<Rows> expected;
    for (const auto& tokens : sequences) expected.push_back(Reference(tiny).logits(tokens));
    for (const std::string& isa : cpu_isas()) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        CAPTURE(family.name);
        CAPTURE(isa);
        CAPTURE(info(dtype).name);
        Runner runner(tiny, {1, dtype, isa}, sequences);
        runner.step({{0, 37}, {1, 1}, {2, 22}});
        // bf16 keeps 8 bits of each matmul input (2^-9 relative error), and errors add up over three layers.
        const double tolerance = dtype == DType::f32 ? 1e-5 : 3e-2;
        for (std::size_t s = 0; s < sequences.size(); ++s)
          CHECK(relative_error(runner.logits[s], expected[s]) < tolerance);
      }
    }
  }
}

// rule: model.rows-do-not-mix
TEST_CASE("a row has the same bits however its sequence is cut, batched, or spread over threads") {
  for (const Family& family : kFamilies) {
    const TinyModel tiny = family.make();
    const auto sequences = some_sequences(tiny.d.vocab_size);
    for (const std::string& isa : cpu_isas()) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        CAPTURE(family.name);
        CAPTURE(isa);
        CAPTURE(info(dtype).name);
        Runner whole(tiny, {1, dtype, isa}, sequences);
        whole.step({{0, 37}, {1, 1}, {2, 22}});

        Runner cut(tiny, {3, dtype, isa}, sequences, 64, 3);
        cut.step({{2, 5}, {0, 7}});
        cut.step({{0, 16}, {2, 16}, {1, 1}});
        cut.step({{0, 1}, {2, 1}});
        for (int i = 0; i < 13; ++i) cut.step({{0, 1}});
        for (std::size_t s = 0; s < sequences.size(); ++s) {
          for (std::size_t p = 0; p < sequences[s].size(); ++p) {
            CAPTURE(s);
            CAPTURE(p);
            REQUIRE(same_bits(whole.logits[s][p], cut.logits[s][p]));
          }
        }
      }
    }
  }
}

// rule: model.only-asked-rows-go-on
TEST_CASE("rows whose logits nobody asks for stop early and change nothing") {
  const TinyModel tiny = llama();
  const auto sequences = some_sequences(tiny.d.vocab_size);
  Runner all(tiny, {2, DType::bf16, "auto"}, sequences), few(tiny, {2, DType::bf16, "auto"}, sequences);
  all.step({{0, 30}, {2, 21}});
  all.step({{0, 7}, {2, 1}});
  few.step({{0, 30}, {2, 21}}, true);
  few.step({{0, 7}, {2, 1}}, true);
  for (const std::size_t p : {29u, 36u}) CHECK(same_bits(all.logits[0][p], few.logits[0][p]));
  for (const std::size_t p : {20u, 21u}) CHECK(same_bits(all.logits[2][p], few.logits[2][p]));
  CHECK(few.logits[0][28].empty());
}

TEST_CASE("logits come in pieces of max_logit_rows, in the order asked for, repeats included") {
  const TinyModel tiny = qwen2();
  const auto tokens = random_tokens(10, tiny.d.vocab_size, 5);
  Runner runner(tiny, {1, DType::f32, "auto"}, {tokens}, 16, 4);
  runner.step({{0, 10}});
  const std::vector<BlockId> table{BlockId{0}};
  const std::vector<TokenRange> ranges{{0, 10, 0, 0}};
  const auto batch = runner.backend->prepare({tokens, ranges, table}, Runner::block_size);
  const std::vector<std::int32_t> rows{9, 0, 3, 3, 8, 1};
  std::vector<std::int64_t> firsts;
  runner.model.forward({batch.get(), rows}, *runner.kv, [&](std::int64_t first, const Tensor& piece) {
    firsts.push_back(first);
    CHECK(piece.rows == (first == 0 ? 4 : 2));
    for (std::int64_t i = 0; i < piece.rows; ++i) {
      const auto* row = static_cast<const float*>(runner.backend->host_view(piece)) + i * piece.stride;
      CHECK(same_bits({row, row + piece.cols}, runner.logits[0][static_cast<std::size_t>(rows[first + i])]));
    }
  });
  CHECK(firsts == std::vector<std::int64_t>{0, 4});

  runner.model.forward({batch.get(), {}}, *runner.kv, [](std::int64_t, const Tensor&) { FAIL("nothing was asked"); });
}

// rule: model.forward-checks-first
TEST_CASE("forward refuses what does not fit") {
  const TinyModel tiny = llama(), other = qwen3();
  const auto tokens = random_tokens(9, tiny.d.vocab_size, 5);
  Runner runner(tiny, {1, DType::f32, "auto"}, {tokens}, 8, 8), stranger(other, {1, DType::f32, "auto"}, {tokens});
  const auto ignore = [](std::int64_t, const Tensor&) {};
  const std::vector<BlockId> table{BlockId{0}};
  const std::vector<TokenRange> nine{{0, 9, 0, 0}}, eight{{0, 8, 0, 0}};
  const auto large = runner.backend->prepare({tokens, nine, table}, Runner::block_size);
  const auto fits = runner.backend->prepare({std::span(tokens).first(8), eight, table}, Runner::block_size);
  const std::vector<std::int32_t> outside{8}, negative{-1};
  CHECK_THROWS_AS(runner.model.forward({nullptr, {}}, *runner.kv, ignore), InvalidArgument);
  CHECK_THROWS_WITH_AS(runner.model.forward({large.get(), {}}, *runner.kv, ignore),
                       "forward: a batch of 9 rows; the model was made for at most 8 (max_batched_tokens)",
                       InvalidArgument);
  CHECK_THROWS_AS(runner.model.forward({fits.get(), outside}, *runner.kv, ignore), InvalidArgument);
  CHECK_THROWS_AS(runner.model.forward({fits.get(), negative}, *runner.kv, ignore), InvalidArgument);
  CHECK_THROWS_AS(runner.model.forward({fits.get(), {}}, *stranger.kv, ignore), InvalidArgument);
  const std::vector<TokenId> unknown{0, 83};
  const std::vector<TokenRange> two{{0, 2, 0, 0}};
  const auto bad = runner.backend->prepare({unknown, two, table}, Runner::block_size);
  CHECK_THROWS_AS(runner.model.forward({bad.get(), {}}, *runner.kv, ignore), InvalidArgument);
}
