// Tokens chosen where the logits lie, against the host's sampler on the same logits with the same random numbers.
#include <algorithm>
#include <array>
#include <deque>
#include <limits>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "sampling/logits_processors.hpp"
#include "selftest/checks.hpp"
#include "selftest/host_sampler.hpp"
#include "selftest/matrix.hpp"

namespace pagedcore::selftest {
namespace {

using Kind = SamplingTask::Kind;

/// Rows of logits: peaked, flat, with impossible tokens, and a model's usual ones.
class Logits {
 public:
  static constexpr std::int64_t kRows = 4;

  explicit Logits(std::int64_t vocab) : vocab_(vocab) {
    for (std::int64_t row = 0; row < kRows; ++row) {
      const float spread = std::array{4.0f, 0.0625f, 2.0f, 2.0f}[static_cast<std::size_t>(row)];
      std::vector<float> values = normal_values(vocab, static_cast<unsigned>(20 + row), spread);
      for (std::size_t t = 0; row == 2 && t < values.size(); t += 3)
        values[t] = -std::numeric_limits<float>::infinity();
      values_.insert(values_.end(), values.begin(), values.end());
    }
  }
  std::int64_t vocab() const noexcept { return vocab_; }
  Matrix on(Backend& device) const { return Matrix(device, DType::f32, kRows, vocab_, values_); }
  std::span<const float> row(std::int64_t i) const {
    return std::span(values_).subspan(static_cast<std::size_t>(i * vocab_), static_cast<std::size_t>(vocab_));
  }

 private:
  std::int64_t vocab_;
  std::vector<float> values_;
};

/// Tasks, and what they refer to.
class Tasks {
 public:
  explicit Tasks(std::int64_t vocab) {
    const auto tokens = static_cast<TokenId>(vocab);
    for (TokenId t = 0; t < tokens; t += 7) prompt_.push_back(t);
    for (TokenId t = 1; t < 300; t += 2) output_.push_back(t % 90 + 1);  // most of them several times
    bias_ = {{3, 2.5f}, {tokens - 1, 6.0f}, {3, 0.5f}, {4, -1.0f}};
    for (TokenId t = 0; t < tokens; ++t)
      if ((0x5a5aa5a5u >> t % 32 & 1u) == 0) banned_.push_back(t);
    SamplingParams bans;
    bans.banned_tokens = banned_;
    mask_ = sampling::token_mask({&bans, {}, {}, 0}, static_cast<std::size_t>(vocab));
  }
  /// `count` tasks over the rows in turn, which differ in their seeds and temperatures, and by what `change` does.
  template <class Change>
  std::vector<SamplingTask> make(std::uint32_t count, Change change) {
    std::vector<SamplingTask> tasks(count);
    for (std::uint32_t i = 0; i < count; ++i) {
      SamplingTask& t = tasks[i];
      SamplingParams& p = params_.emplace_back();
      t.row = i % Logits::kRows;
      p.seed = (std::uint64_t{i} << 33) + 5;
      p.temperature = std::array{1.0f, 0.5f, 2.0f}[i % 3];
      t.context = {&p, prompt_, std::span(output_).first(i * 37 % output_.size()), i};
      change(t, p, i);
    }
    return tasks;
  }

  std::vector<SamplingTask> plain() {
    return make(12, [](SamplingTask&, SamplingParams& p, std::uint32_t i) {
      if (i >= 8) p.temperature = 0.0f;
    });
  }
  std::vector<SamplingTask> truncated() {
    return make(16, [](SamplingTask&, SamplingParams& p, std::uint32_t i) {
      p.top_k = i % 4 == 0 || i % 7 == 3 ? 12 : 0;
      p.top_p = i % 4 == 1 || i % 5 == 2 ? 0.8f : 1.0f;
      p.min_p = i % 4 == 2 || i % 6 == 3 ? 0.03f : 0.0f;
    });
  }
  std::vector<SamplingTask> processed() {
    return make(16, [this](SamplingTask& t, SamplingParams& p, std::uint32_t i) {
      p.repetition_penalty = i % 4 == 0 ? 1.3f : 1.0f;
      p.presence_penalty = i % 4 == 1 ? 0.5f : 0.0f;
      p.frequency_penalty = i % 4 < 2 ? 0.25f : 0.0f;
      if (i % 4 == 2 || i % 5 == 0) p.logit_bias = bias_;
      if (i % 4 == 3 || i % 6 == 0) {
        p.banned_tokens = banned_;
        t.mask = mask_;
      }
      p.top_k = i % 8 < 4 ? 0 : 40;
      if (i % 7 == 6) p.temperature = 0.0f;
    });
  }
  std::vector<SamplingTask> scored() {
    return make(12, [](SamplingTask& t, SamplingParams& p, std::uint32_t i) {
      t.num_top = std::array{0, 5, 20}[i % 3];
      p.logprobs = t.num_top;
      if (i < 6) return;
      t.kind = Kind::score;
      t.token = static_cast<TokenId>(3 * i + 1);  // impossible in no row
    });
  }
  std::vector<SamplingTask> candidates() {
    return make(4, [](SamplingTask& t, SamplingParams&, std::uint32_t i) {
      t.kind = Kind::candidates;
      t.num_top = i % 2 == 0 ? 8 : 33;
    });
  }

 private:
  std::vector<TokenId> prompt_, output_, banned_;
  std::vector<std::pair<TokenId, float>> bias_;
  std::vector<std::uint32_t> mask_;
  std::deque<SamplingParams> params_;  // stay where they are
};

void append(std::vector<float>& all, const SamplingResult& r) {
  const auto add = [&](const TokenLogprob& l) {
    all.insert(all.end(), {static_cast<float>(l.token), l.logprob, static_cast<float>(l.rank)});
  };
  all.insert(all.end(), {static_cast<float>(r.done), static_cast<float>(r.token)});  // tokens are below 2^24
  add(r.chosen);
  for (const TokenLogprob& l : r.top) add(l);
}

std::vector<SamplingResult> sampled(Backend& device, const Matrix& logits, std::span<const SamplingTask> tasks) {
  std::vector<SamplingResult> results(tasks.size());
  device.sample_tokens(logits.tensor(), tasks, results);
  if (std::ranges::any_of(results, &SamplingResult::done)) return results;
  if (device.host_view(logits.tensor()) != nullptr) throw Unsupported("the host samples: it can read the logits");
  throw Corrupt(str("all of ", tasks.size(), " tasks were left to the host, which cannot read the logits"));
}

Checks::Numbers against_host(Backend& device, const Logits& logits, std::span<const SamplingTask> tasks) {
  const Matrix matrix = logits.on(device);
  const std::vector<SamplingResult> results = sampled(device, matrix, tasks);
  Checks::Numbers numbers;
  std::size_t left = 0;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (!results[i].done) {
      ++left;
      continue;
    }
    append(numbers.got, results[i]);
    append(numbers.want, sampled_on_host(logits.row(tasks[i].row), tasks[i]));
  }
  if (left > 0) numbers.note = str(left, " of ", tasks.size(), " tasks were left to the host");
  return numbers;
}

Checks::Pair alone_and_together(Backend& device, const Logits& logits, Tasks& all) {
  std::vector<SamplingTask> tasks;
  for (const auto& some : {all.plain(), all.truncated(), all.processed(), all.scored(), all.candidates()})
    tasks.insert(tasks.end(), some.begin() + 1, some.begin() + 4);
  const Matrix matrix = logits.on(device);
  std::vector<float> together, alone;
  for (const SamplingResult& result : sampled(device, matrix, tasks)) append(together, result);
  for (const SamplingTask& task : tasks) {
    SamplingResult result;
    device.sample_tokens(matrix.tensor(), {&task, 1}, {&result, 1});
    append(alone, result);
  }
  return {encoded(together, DType::f32), encoded(alone, DType::f32)};
}

}  // namespace

void check_sampling(Checks& checks) {
  // Odd sizes; the larger one has several blocks of every kind that a vocabulary is cut into.
  const Logits logits(checks.quick() ? 701 : 130'003);
  Tasks all(logits.vocab());
  constexpr double kLastBit = 1.2e-7;  // of a logarithm, as f32; another token is more than that
  const auto add = [&](const char* what, const std::vector<SamplingTask>& tasks, double tolerance) {
    checks.compare_host("sample_tokens", what, tolerance,
                        [&](Backend& device) { return against_host(device, logits, tasks); });
  };
  add("greedy, and by temperature", all.plain(), 0.0);
  add("top-k, top-p, min-p", all.truncated(), 0.0);
  add("penalties, bias, masks", all.processed(), 0.0);
  add("log-probabilities, ranks, most likely tokens", all.scored(), kLastBit);
  add("candidates of beams", all.candidates(), kLastBit);
  checks.exact_optional("sample_tokens", "same bits for a task alone and among others",
                        [&](Backend& device) { return alone_and_together(device, logits, all); });
}

}  // namespace pagedcore::selftest
