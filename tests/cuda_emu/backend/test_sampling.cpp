// sample_tokens against the host's sampler: which tasks are done, with which results, and which are left.
#include <array>
#include <limits>
#include <optional>

#include "harness.hpp"
#include "sampling/logits_processors.hpp"
#include "sampling/logprobs.hpp"
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
const std::vector<TokenId> kBanned{0, 1, 4, 5, 12, 31, 64, 699};

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

/// A task, and what it refers to.
struct Case {
  SamplingParams params;
  std::vector<std::uint32_t> mask;
  SamplingTask task;
};

/// Fills in what the task refers to, where the case lies now.
const SamplingTask& completed(Case& c) {
  c.task.context.params = &c.params;
  c.mask = sampling::token_mask(c.task.context, kVocab);
  c.task.mask = c.mask;
  if (c.task.kind == Kind::draw) c.task.num_top = sampling::num_top(c.params.logprobs, kVocab);
  return c.task;
}
std::vector<SamplingTask> completed(std::span<Case> cases) {
  std::vector<SamplingTask> tasks;
  for (Case& c : cases) tasks.push_back(completed(c));
  return tasks;
}

/// Tasks of all kinds over `rows` rows, most with several things at once.
std::vector<Case> cases_over(std::int64_t rows) {
  std::vector<Case> cases(24);
  for (std::uint32_t i = 0; i < 24; ++i) {
    auto& [p, mask, t] = cases[i];
    t.row = i % rows;
    p.seed = 77 + i;
    t.context = {nullptr, kPrompt, std::span(kOutput).first(i % 4 * 100), i};
    p.temperature = std::array{1.0f, 0.0f, 0.5f, 4.0f}[i % 4];
    if (i % 3 == 0) p.top_p = 0.8f;
    if (i % 5 == 1) p.top_k = 12;
    if (i % 7 == 2) p.min_p = 0.03f;
    if (i % 4 == 3) p.repetition_penalty = 1.3f;
    if (i % 6 == 4) p.presence_penalty = 0.5f;
    if (i % 6 == 5) p.frequency_penalty = -0.25f;
    if (i % 5 == 2) p.logit_bias = kBias;
    if (i % 5 == 3) p.banned_tokens = kBanned;
    if (i % 2 == 0) p.logprobs = static_cast<std::int32_t>(i % 3) * 4;
    if (i % 8 == 6) {
      t.kind = Kind::score;
      t.token = static_cast<TokenId>(i * 20);
    }
    if (i % 8 == 7) {
      t.kind = Kind::candidates;
      t.num_top = 9;
    }
  }
  return cases;
}

/// Another value of a field than its default, within its limits.
template <class T, class D>
D other_value(const Field<T, D>& f, const D& value) {
  if constexpr (std::is_same_v<D, bool>) {
    return !value;
  } else if constexpr (std::is_arithmetic_v<D>) {
    for (const double candidate : {0.5, 2.0, 7.0, 0.0})
      if (const auto v = static_cast<D>(candidate); v != value && f.range.admits(v)) return v;
    FAIL("no other value of ", f.name);
    return value;
  } else if constexpr (std::is_same_v<D, std::vector<TokenId>>) {
    return {3, 64};
  } else if constexpr (std::is_same_v<D, std::optional<std::int32_t>>) {
    return 2;
  } else {
    static_assert(std::is_same_v<D, std::vector<std::pair<TokenId, float>>>, "say how to set such a field");
    return kBias;
  }
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
    std::vector<Case> cases = cases_over(5);
    std::vector<SamplingTask> tasks = completed(cases);
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

// rule: backend.sampling-may-be-declined, cuda.tokens-are-the-hosts
TEST_CASE("every parameter in turn: a task is declined, or its token is the host's") {
  const auto backend = make();
  const Logits logits(*backend);
  std::vector<std::string> served;
  SamplingParams defaults;
  each_field(defaults, [&](const auto&, const auto& f) {
    CAPTURE(f.name);
    std::vector<Case> cases(20);
    for (std::uint32_t i = 0; i < cases.size(); ++i) {
      cases[i].params.*f.member = other_value(f, defaults.*f.member);
      cases[i].task.row = i % 5;
      cases[i].task.context = {nullptr, kPrompt, std::span(kOutput).first(i), i};
    }
    const std::vector<SamplingTask> tasks = completed(cases);
    std::vector<SamplingResult> results(tasks.size());
    backend->sample_tokens(logits.tensor, tasks, results);
    bool all = true;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      all = all && results[i].done;
      if (results[i].done) check_same(results[i], selftest::sampled_on_host(logits.row(tasks[i].row), tasks[i]));
    }
    if (all) served.push_back(f.name);
  });
  CHECK(served.size() >= 18);  // those that the kernels know today
}

// rule: cuda.tokens-are-the-hosts
TEST_CASE("tasks that are left to the caller, among others that are done") {
  const auto backend = make();
  Logits logits(*backend);
  logits.values[720 + 30] = std::numeric_limits<float>::quiet_NaN();  // row 1
  backend->upload(logits.matrix.tensor, std::as_bytes(std::span(logits.values)));
  std::vector<Case> cases(9);
  const std::vector<TokenId> outside{1, kVocab};
  for (Case& c : cases) c.task.context.prompt = kPrompt;
  cases[1].task.row = 1;  // corrupt
  cases[2].task.row = 1;
  cases[2].task.kind = Kind::candidates;
  cases[2].task.num_top = 3;
  cases[4].task.context.output = outside;
  cases[4].params.presence_penalty = 1.0f;
  cases[5].task.kind = Kind::score;
  cases[5].task.token = kVocab;
  cases[6].params.logprobs = 1025;
  cases[7].params.temperature = std::numeric_limits<float>::infinity();
  cases[8].task.context.output = outside;  // nobody looks at it
  std::vector<SamplingTask> tasks = completed(cases);
  const std::vector<std::uint32_t> none(22, 0);
  tasks[3].mask = none;
  std::vector<SamplingResult> results(tasks.size());
  backend->sample_tokens(logits.tensor, tasks, results);
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    CAPTURE(i);
    CHECK(results[i].done == (i == 0 || i == 8));
  }
  check_same(results[0], selftest::sampled_on_host(logits.row(0), tasks[0]));
  const Matrix equal(*backend, DType::f32, 1, 100);  // half of its tokens are half of the mass: rounding decides
  SamplingParams half_of_the_mass;
  half_of_the_mass.top_p = 0.5f;
  SamplingTask half;
  half.context.params = &half_of_the_mass;
  backend->sample_tokens(equal.tensor, {&half, 1}, std::span(results).first(1));
  CHECK(!results[0].done);

  CudaOptions options = small();
  options.workspace = 1 << 20;
  const auto tight = make(options);
  const Matrix wide(*tight, DType::f32, 1, 70000, random_values(70000, 5));  // a list of its tokens is 280 KB
  std::vector<SamplingTask> two(2);
  SamplingParams most_of_the_mass;
  most_of_the_mass.top_p = 0.9f;
  two[0].context.params = &most_of_the_mass;
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
  const std::vector<std::uint32_t> short_mask(21, 1);
  tasks[0].mask = short_mask;
  CHECK_THROWS_WITH_AS(backend->sample_tokens(logits.tensor, tasks, results), doctest::Contains("a mask of 21 words"),
                       InvalidArgument);
  const Matrix narrow(*backend, DType::bf16, 1, kVocab);
  CHECK_THROWS_AS(backend->sample_tokens(narrow.tensor, {}, {}), InvalidArgument);
}
