// sample_tokens against the host's sampler: which tasks are done, with which results, and which are left.
#include <array>
#include <limits>

#include "harness.hpp"
#include "selftest/host_sampler.hpp"

using namespace cuda_test;
using Kind = SamplingTask::Kind;

namespace {

constexpr std::int64_t kVocab = 700;
const std::vector<TokenId> kPrompt = [] {
  std::vector<TokenId> tokens{5, 699, 5};
  for (TokenId t = 0; t < 700; t += 2) tokens.push_back(t);
  return tokens;
}();
const std::vector<TokenId> kOutput = [] {
  std::vector<TokenId> tokens;
  for (TokenId t = 1; t < 600; t += 2) tokens.push_back(t % 400 + 1);  // some twice
  return tokens;
}();
const std::vector<std::pair<TokenId, float>> kBias{{3, 2.5f}, {4, -1.0f}, {3, 0.5f}};
const std::vector<std::uint32_t> kMask = [] {
  std::vector<std::uint32_t> mask(22, 0xffffffffu);
  mask[0] = 0x12345678u;
  return mask;
}();

void check_same(const SamplingResult& got, const SamplingResult& want) {
  const auto same = [](const TokenLogprob& a, const TokenLogprob& b) {
    CHECK(a.token == b.token);
    CHECK(a.logprob == b.logprob);
    CHECK(a.rank == b.rank);
  };
  CHECK(got.done == want.done);
  CHECK(got.token == want.token);
  same(got.chosen, want.chosen);
  REQUIRE(got.top.size() == want.top.size());
  for (std::size_t i = 0; i < got.top.size(); ++i) same(got.top[i], want.top[i]);
}

/// Tasks of all kinds over `rows` rows, most with several things at once.
std::vector<SamplingTask> tasks_over(std::int64_t rows) {
  std::vector<SamplingTask> tasks;
  for (std::uint32_t i = 0; i < 24; ++i) {
    SamplingTask t;
    t.row = i % rows;
    t.seed = 77 + i;
    t.sample = i;
    t.prompt = kPrompt;
    t.output = std::span(kOutput).first(i % 4 * 100);
    t.scale = std::array{1.0f, 0.0f, 2.0f, 0.25f}[i % 4];
    if (i % 3 == 0) t.top_p = 0.8f;
    if (i % 5 == 1) t.top_k = 12;
    if (i % 7 == 2) t.min_p = 0.03f;
    if (i % 4 == 3) t.repetition_penalty = 1.3f;
    if (i % 6 == 4) t.presence_penalty = 0.5f;
    if (i % 6 == 5) t.frequency_penalty = -0.25f;
    if (i % 5 == 2) t.logit_bias = kBias;
    if (i % 5 == 3) t.mask = kMask;
    t.wants_logprobs = i % 2 == 0;
    t.num_top = t.wants_logprobs ? static_cast<std::int32_t>(i % 3) * 4 : 0;
    if (i % 8 == 6) {
      t.kind = Kind::score;
      t.token = static_cast<TokenId>(i * 20);
    }
    if (i % 8 == 7) {
      t.kind = Kind::candidates;
      t.num_top = 9;
    }
    tasks.push_back(t);
  }
  return tasks;
}

/// Logits of 5 rows within a wider matrix.
struct Logits {
  explicit Logits(Backend& backend)
      : values(random_values(5 * 720, 3)), matrix(backend, DType::f32, 5, 720, values), tensor(matrix.tensor) {
    tensor.cols = kVocab;
  }
  std::span<const float> row(std::int64_t i) const {
    return std::span(values).subspan(static_cast<std::size_t>(i) * 720, kVocab);
  }
  std::vector<float> values;
  Matrix matrix;
  Tensor tensor;
};

}  // namespace

// rule: backend.sampling-may-be-declined, cuda.tokens-are-the-hosts
TEST_CASE("tasks of all kinds, together, alone and in pieces") {
  for (const std::size_t workspace : {std::size_t{4} << 20, std::size_t{1} << 20}) {
    CudaOptions options = small();
    options.workspace = workspace;  // 128 KiB are a piece of the smaller one
    const auto backend = make(options);
    const Logits logits(*backend);
    std::vector<SamplingTask> tasks = tasks_over(5);
    while (tasks.size() < 60) tasks.push_back(tasks[tasks.size() % 24]);
    std::vector<SamplingResult> results(tasks.size());
    results[3].top.resize(7);  // what was there before does not matter
    backend->sample_tokens(logits.tensor, tasks, results);
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      CAPTURE(i);
      check_same(results[i], selftest::sampled_on_host(logits.row(tasks[i].row), tasks[i]));
    }
    for (std::size_t i = 0; i < 24; i += 5) {
      SamplingResult alone;
      backend->sample_tokens(logits.tensor, std::span(tasks).subspan(i, 1), {&alone, 1});
      check_same(alone, results[i]);
    }
  }
}

// rule: cuda.tokens-are-the-hosts
TEST_CASE("tasks that are left to the caller, among others that are done") {
  const auto backend = make();
  Logits logits(*backend);
  logits.values[720 + 30] = std::numeric_limits<float>::quiet_NaN();  // row 1
  backend->upload(logits.matrix.tensor, std::as_bytes(std::span(logits.values)));
  std::vector<SamplingTask> tasks(9);
  const std::vector<TokenId> outside{1, kVocab};
  const std::vector<std::uint32_t> none(22, 0);
  for (SamplingTask& t : tasks) t.prompt = kPrompt;
  tasks[1].row = 1;  // corrupt
  tasks[2].row = 1;
  tasks[2].kind = Kind::candidates;
  tasks[2].num_top = 3;
  tasks[3].mask = none;
  tasks[4].output = outside;
  tasks[4].presence_penalty = 1.0f;
  tasks[5].kind = Kind::score;
  tasks[5].token = kVocab;
  tasks[6].wants_logprobs = true;
  tasks[6].num_top = 1025;
  tasks[7].scale = std::numeric_limits<float>::infinity();
  tasks[8].output = outside;  // nobody looks at it
  std::vector<SamplingResult> results(tasks.size());
  backend->sample_tokens(logits.tensor, tasks, results);
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    CAPTURE(i);
    CHECK(results[i].done == (i == 0 || i == 8));
  }
  check_same(results[0], selftest::sampled_on_host(logits.row(0), tasks[0]));
  const Matrix equal(*backend, DType::f32, 1, 100);  // half of its tokens are half of the mass: rounding decides
  SamplingTask half;
  half.top_p = 0.5f;
  backend->sample_tokens(equal.tensor, {&half, 1}, std::span(results).first(1));
  CHECK(!results[0].done);

  CudaOptions options = small();
  options.workspace = 1 << 20;
  const auto tight = make(options);
  const Matrix wide(*tight, DType::f32, 1, 70000, random_values(70000, 5));  // a list of its tokens is 280 KB
  std::vector<SamplingTask> two(2);
  two[0].top_p = 0.9f;
  std::vector<SamplingResult> answers(2);
  tight->sample_tokens(wide.tensor, two, answers);
  CHECK(!answers[0].done);
  CHECK(answers[1].done);  // a draw from all tokens needs no list

  options = small();
  options.sample_on_device = false;
  const auto off = make(options);
  const Logits there(*off);
  answers.assign(2, results[0]);
  off->sample_tokens(there.tensor, std::vector<SamplingTask>(2), answers);
  CHECK(!answers[0].done);
  CHECK(!answers[1].done);
}

TEST_CASE("arguments of sample_tokens that do not fit") {
  const auto backend = make();
  const Logits logits(*backend);
  std::vector<SamplingTask> tasks(1);
  std::vector<SamplingResult> results(1), two(2);
  CHECK_THROWS_WITH_AS(backend->sample_tokens(logits.tensor, tasks, two), doctest::Contains("1 tasks, and room for 2"),
                       InvalidArgument);
  tasks[0].row = 5;
  CHECK_THROWS_WITH_AS(backend->sample_tokens(logits.tensor, tasks, results),
                       doctest::Contains("row 5 of logits of 5 rows"), InvalidArgument);
  tasks[0] = {};
  tasks[0].mask = std::span(kMask).first(21);
  CHECK_THROWS_WITH_AS(backend->sample_tokens(logits.tensor, tasks, results), doctest::Contains("a mask of 21 words"),
                       InvalidArgument);
  const Matrix narrow(*backend, DType::bf16, 1, kVocab);
  CHECK_THROWS_AS(backend->sample_tokens(narrow.tensor, {}, {}), InvalidArgument);
}
