#include "device_sampler.hpp"

#include <algorithm>
#include <deque>

#include "device_array.hpp"
#include "sampling/logits_processors.hpp"
#include "sampling/truncation.hpp"

namespace pagedcore::cuda {
namespace {

using cuda_test::DeviceArray;

/// Device copies that live as long as the launches that read them.
class Pool {
 public:
  template <class T>
  T* put(const std::vector<T>& values) {
    static_assert(sizeof(T) == 4);
    std::vector<std::uint32_t> words(values.size());
    std::copy_n(reinterpret_cast<const std::byte*>(values.data()), values.size() * 4,
                reinterpret_cast<std::byte*>(words.data()));
    return reinterpret_cast<T*>(arrays_.emplace_back(words).data());
  }
  template <class T>
  T* space(std::size_t size) {
    static_assert(sizeof(T) == 4);
    return reinterpret_cast<T*>(arrays_.emplace_back(size).data());
  }

 private:
  std::deque<DeviceArray<std::uint32_t>> arrays_;
};

ProcessTask process_task(const SampleContext& c, const float* logits, std::size_t vocab, Pool& pool) {
  const SamplingParams& p = *c.params;
  ProcessTask task;
  task.logits = logits;
  task.out = pool.space<float>(vocab);
  if (p.repetition_penalty != 1.0f || p.presence_penalty != 0.0f || p.frequency_penalty != 0.0f)
    task.counts = pool.space<std::uint32_t>(vocab);
  task.prompt = pool.put(std::vector(c.prompt.begin(), c.prompt.end()));
  task.output = pool.put(std::vector(c.output.begin(), c.output.end()));
  task.prompt_size = static_cast<std::int32_t>(c.prompt.size());
  task.output_size = static_cast<std::int32_t>(c.output.size());
  task.repetition_penalty = p.repetition_penalty;
  task.presence_penalty = p.presence_penalty;
  task.frequency_penalty = p.frequency_penalty;
  std::vector<TokenId> bias_tokens;
  std::vector<float> bias;
  for (const auto& [token, value] : p.logit_bias) {
    bias_tokens.push_back(token);
    bias.push_back(value);
  }
  task.bias_tokens = pool.put(bias_tokens);
  task.bias = pool.put(bias);
  task.num_bias = static_cast<std::int32_t>(bias.size());
  const auto mask = sampling::token_mask(c, vocab);
  if (!mask.empty()) task.mask = pool.put(mask);
  return task;
}

std::vector<TokenLogprob> best_first(const std::vector<DeviceLogprob>& entries) {
  std::vector<TokenLogprob> best;
  for (const DeviceLogprob& e : entries)
    if (e.token >= 0) best.push_back({e.token, e.logprob, e.rank});
  return best;
}

}  // namespace

std::vector<DeviceOutcome> sample_on_device(std::span<const std::vector<float>> rows,
                                            std::span<const SampleContext> requests) {
  const std::size_t count = rows.size(), vocab = rows[0].size();
  const auto size = static_cast<std::int32_t>(count), vocab_size = static_cast<std::int32_t>(vocab);
  Pool pool;
  std::vector<ProcessTask> process;
  std::vector<SampleTask> sample_tasks;
  for (std::size_t i = 0; i < count; ++i) {
    const SamplingParams& p = *requests[i].params;
    const float* logits = pool.put(rows[i]);
    SampleTask task;
    task.model_logits = logits;
    process.push_back(process_task(requests[i], logits, vocab, pool));
    task.logits = process.back().out;
    task.candidates = pool.space<TokenId>(vocab);
    task.scale = sampling::logit_scale(p);
    task.top_k = p.top_k;
    task.top_p = p.top_p;
    task.min_p = p.min_p;
    task.seed = p.seed;
    task.position = requests[i].prompt.size() + requests[i].output.size();
    task.sample = requests[i].sample;
    sample_tasks.push_back(task);
  }
  const DeviceArray<ProcessTask> device_process(process);
  const DeviceArray<SampleTask> device_samples(sample_tasks);
  const DeviceArray<SampledToken> results(count);
  cuda_test::check(launch_process_logits(device_process.data(), size, vocab_size, nullptr));
  cuda_test::check(launch_sample(device_samples.data(), results.data(), size, vocab_size, nullptr));

  std::size_t num_top = 1;
  for (const SampleContext& c : requests)
    num_top = std::max(num_top, static_cast<std::size_t>(c.params->logprobs.value_or(0)));
  const DeviceArray<DeviceLogprob> chosen(count), top(count * num_top);
  const DeviceArray<RowStatus> statuses(count);
  std::vector<LogprobTask> logprob_tasks;
  for (std::size_t i = 0; i < count; ++i) {
    LogprobTask task;
    task.logits = sample_tasks[i].model_logits;
    task.token = results.data() + i;
    task.candidates = sample_tasks[i].candidates;
    task.chosen = chosen.data() + i;
    task.top = top.data() + i * num_top;
    task.num_top = requests[i].params->logprobs.value_or(0);
    task.status = statuses.data() + i;
    logprob_tasks.push_back(task);
  }
  const DeviceArray<LogprobTask> device_logprobs(logprob_tasks);
  cuda_test::check(launch_logprobs(device_logprobs.data(), size, vocab_size, nullptr));
  cuda_test::finish();

  const auto sampled = results.download();
  const auto chosen_host = chosen.download(), top_host = top.download();
  const auto status_host = statuses.download();
  std::vector<DeviceOutcome> outcomes(count);
  for (std::size_t i = 0; i < count; ++i) {
    outcomes[i].status = sampled[i].status;
    outcomes[i].token = sampled[i].token;
    outcomes[i].logprob_status = status_host[i];
    if (sampled[i].status != RowStatus::ok) continue;
    outcomes[i].logprobs.chosen = {chosen_host[i].token, chosen_host[i].logprob, chosen_host[i].rank};
    const auto begin = top_host.begin() + static_cast<std::ptrdiff_t>(i * num_top);
    outcomes[i].logprobs.top = best_first({begin, begin + logprob_tasks[i].num_top});
  }
  return outcomes;
}

std::vector<sampling::BeamCandidate> beam_candidates_on_device(const std::vector<float>& row, std::int32_t count) {
  const DeviceArray<float> logits(row);
  const DeviceArray<TokenId> candidates(row.size());
  const DeviceArray<DeviceLogprob> top(static_cast<std::size_t>(count));
  LogprobTask task;
  task.logits = logits.data();
  task.candidates = candidates.data();
  task.top = top.data();
  task.num_top = count;
  task.order = CandidateOrder::logprobs;
  const DeviceArray<LogprobTask> tasks(std::vector<LogprobTask>{task});
  cuda_test::check(launch_logprobs(tasks.data(), 1, static_cast<std::int32_t>(row.size()), nullptr));
  cuda_test::finish();
  std::vector<sampling::BeamCandidate> result;
  for (const TokenLogprob& t : best_first(top.download())) result.push_back({t.token, t.logprob});
  return result;
}

}  // namespace pagedcore::cuda
