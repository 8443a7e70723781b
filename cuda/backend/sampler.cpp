#include "backend/sampler.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/field_lists.hpp"
#include "kernels/sampling.hpp"
#include "sampling/truncation.hpp"

namespace pagedcore::cuda {
namespace {

using Kind = SamplingTask::Kind;

/// The parameters that the kernels or the mask take into account, or that do not concern one draw. A task in which any
/// other differs from its default is declined: a parameter that is new is sampled on the host until it is served here.
constexpr std::array<std::string_view, 18> kHonoured{"n",
                                                     "max_tokens",
                                                     "min_tokens",
                                                     "temperature",
                                                     "top_k",
                                                     "top_p",
                                                     "min_p",
                                                     "repetition_penalty",
                                                     "presence_penalty",
                                                     "frequency_penalty",
                                                     "logit_bias",
                                                     "banned_tokens",
                                                     "allowed_token_ids",
                                                     "stop_token_ids",
                                                     "logprobs",
                                                     "prompt_logprobs",
                                                     "prompt_logprob_start",
                                                     "seed"};

constexpr std::int32_t kMostTop = 1024;  // a kernel orders them with (their number)^2 / 256 comparisons a thread

std::size_t aligned(std::size_t bytes) { return (bytes + 15) / 16 * 16; }
template <typename T>
std::size_t bytes_for(std::size_t count) {
  return aligned(count * sizeof(T));
}

bool penalises(const SamplingParams& p) {
  return p.repetition_penalty != 1.0f || p.presence_penalty != 0.0f || p.frequency_penalty != 0.0f;
}
/// Only the repetition penalty looks at the prompt.
std::span<const TokenId> counted_prompt(const SamplingTask& t) {
  return t.params().repetition_penalty != 1.0f ? t.context.prompt : std::span<const TokenId>();
}
bool processes(const SamplingTask& t) {
  return penalises(t.params()) || !t.params().logit_bias.empty() || !t.mask.empty();
}
bool truncates(const SamplingParams& p, std::int32_t vocab) {
  return p.temperature > 0.0f && (p.min_p > 0.0f || p.top_p < 1.0f || (p.top_k > 0 && p.top_k < vocab));
}
bool wants_logprobs(const SamplingTask& t) { return t.kind != Kind::draw || t.params().logprobs.has_value(); }

/// Whether the kernels can do the task, as far as its values tell.
bool is_served(const SamplingTask& t, std::int32_t vocab) {
  const auto inside = [vocab](TokenId token) { return token >= 0 && token < vocab; };
  if (vocab < 1 || vocab > kMaxVocab || t.num_top < 0 || t.num_top > kMostTop) return false;
  const SamplingParams& p = t.params();
  if (changed_beyond(p, kHonoured) != nullptr) return false;
  if (t.kind == Kind::score) return inside(t.token);
  if (t.kind == Kind::candidates) return true;
  if (!(p.temperature >= 0.0f) || !std::isfinite(p.temperature)) return false;
  if (penalises(p) &&
      !(std::ranges::all_of(counted_prompt(t), inside) && std::ranges::all_of(t.context.output, inside)))
    return false;
  return std::ranges::all_of(p.logit_bias, inside, [](const auto& bias) { return bias.first; });
}

/// Device memory that is handed out from its beginning.
class Region {
 public:
  Region(Device& device, std::size_t bytes) : memory_(device, bytes) {}
  template <typename T>
  T* take(std::size_t count) {
    return count == 0 ? nullptr
                      : reinterpret_cast<T*>(memory_.data() + std::exchange(used_, used_ + bytes_for<T>(count)));
  }
  std::byte* data() const { return memory_.data(); }
  std::size_t used() const { return used_; }

 private:
  DeviceMemory memory_;
  std::size_t used_ = 0;
};

/// A region whose contents come from the host, in one copy.
class Inputs {
 public:
  Inputs(Device& device, std::size_t bytes) : region_(device, bytes), host_(bytes) {}
  template <typename T>
  const T* put(std::span<const T> values) {
    const T* place = region_.take<T>(values.size());
    if (!values.empty())
      std::memcpy(host_.data() + (reinterpret_cast<const std::byte*>(place) - region_.data()), values.data(),
                  values.size_bytes());
    return place;
  }
  template <typename T>
  const T* put(const std::vector<T>& values) {
    return put(std::span<const T>(values));
  }
  void send(Staging& staging, cudaStream_t stream) {
    staging.upload(region_.data(), std::span(host_).first(region_.used()), stream);
  }

 private:
  Region region_;
  std::vector<std::byte> host_;
};

/// A region that the host reads after fetch().
class Outputs {
 public:
  Outputs(Device& device, std::size_t bytes) : region_(device, bytes) {}
  template <typename T>
  T* take(std::size_t count) {
    return region_.take<T>(count);
  }
  void fetch(Staging& staging, cudaStream_t stream) {
    host_.resize(region_.used());
    staging.download(host_, region_.data(), stream);
  }
  template <typename T>
  T at(const T* place) const {
    T value;
    std::memcpy(&value, host_.data() + (reinterpret_cast<const std::byte*>(place) - region_.data()), sizeof value);
    return value;
  }

 private:
  Region region_;
  std::vector<std::byte> host_;
};

TokenLogprob as_token_logprob(const DeviceLogprob& l) { return {l.token, l.logprob, l.rank}; }

ProcessTask process_task(const SamplingTask& t, const float* logits, std::int32_t vocab, Inputs& inputs,
                         Region& scratch) {
  const SamplingParams& p = t.params();
  ProcessTask process;
  process.logits = logits;
  process.out = scratch.take<float>(static_cast<std::size_t>(vocab));
  if (penalises(p)) {
    process.counts = scratch.take<std::uint32_t>(static_cast<std::size_t>(vocab));
    process.prompt = inputs.put(counted_prompt(t));
    process.output = inputs.put(t.context.output);
    process.prompt_size = static_cast<std::int32_t>(counted_prompt(t).size());
    process.output_size = static_cast<std::int32_t>(t.context.output.size());
    process.repetition_penalty = p.repetition_penalty;
    process.presence_penalty = p.presence_penalty;
    process.frequency_penalty = p.frequency_penalty;
  }
  std::vector<TokenId> tokens;
  std::vector<float> values;
  for (const auto& [token, value] : p.logit_bias) {
    tokens.push_back(token);
    values.push_back(value);
  }
  process.bias_tokens = inputs.put(tokens);
  process.bias = inputs.put(values);
  process.num_bias = static_cast<std::int32_t>(tokens.size());
  process.mask = inputs.put(t.mask);
  return process;
}

SampleTask sample_task(const SamplingTask& t, const float* logits, const float* processed, TokenId* candidates) {
  const SamplingParams& p = t.params();
  SampleTask sample;
  sample.logits = processed;
  sample.model_logits = logits;
  sample.candidates = candidates;
  sample.scale = sampling::logit_scale(p);
  sample.top_k = p.top_k;
  sample.top_p = p.top_p;
  sample.min_p = p.min_p;
  sample.seed = p.seed;
  sample.position = t.context.prompt.size() + t.context.output.size();
  sample.sample = t.context.sample;
  return sample;
}

}  // namespace

/// Bytes of device memory of a task, or of several.
struct Sampler::Needs {
  std::size_t inputs = 0, scratch = 0, outputs = 0;
  std::size_t total() const { return inputs + scratch + outputs; }
  Needs& operator+=(const Needs& more) {
    inputs += more.inputs;
    scratch += more.scratch;
    outputs += more.outputs;
    return *this;
  }
};

/// A task of a piece, and where on the device its results will be.
struct Sampler::Member {
  const SamplingTask* task;
  SamplingResult* result;
  const SampledToken* sampled = nullptr;
  const DeviceLogprob* chosen = nullptr;
  const DeviceLogprob* top = nullptr;
  const RowStatus* status = nullptr;
};

Sampler::Sampler(Device& device, Staging& staging, std::size_t memory_bytes)
    : device_(device), staging_(staging), memory_bytes_(memory_bytes) {}

Sampler::Needs Sampler::needs_of(const SamplingTask& t, std::int32_t vocab) const {
  const auto row = bytes_for<float>(static_cast<std::size_t>(vocab));
  Needs needs;
  if (t.kind == Kind::draw) {
    needs.inputs += bytes_for<SampleTask>(1);
    needs.outputs += bytes_for<SampledToken>(1);
    if (processes(t)) {
      needs.inputs += bytes_for<ProcessTask>(1) + 2 * bytes_for<float>(t.params().logit_bias.size()) +
                      bytes_for<std::uint32_t>(t.mask.size());
      needs.scratch += row;
    }
    if (penalises(t.params())) {
      needs.inputs += bytes_for<TokenId>(counted_prompt(t).size()) + bytes_for<TokenId>(t.context.output.size());
      needs.scratch += row;
    }
  }
  if (t.kind == Kind::score) needs.inputs += bytes_for<SampledToken>(1);
  if (wants_logprobs(t)) {
    needs.inputs += bytes_for<LogprobTask>(1);
    needs.outputs += bytes_for<RowStatus>(1) + bytes_for<DeviceLogprob>(1) +
                     bytes_for<DeviceLogprob>(static_cast<std::size_t>(t.num_top));
  }
  if (t.num_top > 0 || (t.kind == Kind::draw && truncates(t.params(), vocab))) needs.scratch += row;
  return needs;
}

void Sampler::run(const Tensor& logits, std::span<const SamplingTask> tasks, std::span<SamplingResult> results) {
  const auto vocab = static_cast<std::int32_t>(std::min<std::int64_t>(logits.cols, kMaxVocab + 1));
  std::vector<Member> piece;
  Needs needs;
  const auto finish_piece = [&] {
    if (!piece.empty()) run_piece(logits, piece, needs);
    piece.clear();
    needs = {};
  };
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (!is_served(tasks[i], vocab)) continue;
    const Needs more = needs_of(tasks[i], vocab);
    if (more.total() > memory_bytes_) continue;
    if (needs.total() + more.total() > memory_bytes_) finish_piece();
    needs += more;
    piece.push_back({&tasks[i], &results[i]});
  }
  finish_piece();
}

void Sampler::run_piece(const Tensor& logits, std::span<Member> members, const Needs& needs) {
  const auto vocab = static_cast<std::int32_t>(logits.cols);
  Inputs inputs(device_, needs.inputs);
  Region scratch(device_, needs.scratch);
  Outputs outputs(device_, needs.outputs);
  std::vector<ProcessTask> process_tasks;
  std::vector<SampleTask> sample_tasks;
  std::vector<LogprobTask> logprob_tasks;
  const auto draws =
      static_cast<std::size_t>(std::ranges::count(members, Kind::draw, [](const Member& m) { return m.task->kind; }));
  SampledToken* sampled = outputs.take<SampledToken>(draws);
  for (Member& member : members) {
    const SamplingTask& t = *member.task;
    const auto* row = static_cast<const float*>(logits.data) + t.row * logits.stride;
    const bool lists = t.num_top > 0 || (t.kind == Kind::draw && truncates(t.params(), vocab));
    TokenId* candidates = lists ? scratch.take<TokenId>(static_cast<std::size_t>(vocab)) : nullptr;
    if (t.kind == Kind::draw) {
      const float* processed = row;
      if (processes(t)) {
        process_tasks.push_back(process_task(t, row, vocab, inputs, scratch));
        processed = process_tasks.back().out;
      }
      member.sampled = sampled + sample_tasks.size();
      sample_tasks.push_back(sample_task(t, row, processed, candidates));
    }
    if (!wants_logprobs(t)) continue;
    LogprobTask logprobs;
    logprobs.logits = row;
    logprobs.candidates = candidates;
    logprobs.num_top = t.num_top;
    member.top = logprobs.top = outputs.take<DeviceLogprob>(static_cast<std::size_t>(t.num_top));
    member.status = logprobs.status = outputs.take<RowStatus>(1);
    if (t.kind == Kind::candidates) {
      logprobs.order = CandidateOrder::logprobs;
    } else {
      logprobs.token = t.kind == Kind::draw ? member.sampled : inputs.put(std::vector<SampledToken>{{t.token, {}}});
      member.chosen = logprobs.chosen = outputs.take<DeviceLogprob>(1);
    }
    logprob_tasks.push_back(logprobs);
  }
  const ProcessTask* to_process = inputs.put(process_tasks);
  const SampleTask* to_sample = inputs.put(sample_tasks);
  const LogprobTask* to_score = inputs.put(logprob_tasks);
  inputs.send(staging_, device_.stream());
  const auto count = [](const auto& tasks) { return static_cast<std::int32_t>(tasks.size()); };
  device_.check(launch_process_logits(to_process, count(process_tasks), vocab, device_.stream()), "processing logits");
  device_.check(launch_sample(to_sample, sampled, count(sample_tasks), vocab, device_.stream()), "sampling");
  device_.check(launch_logprobs(to_score, count(logprob_tasks), vocab, device_.stream()), "log-probabilities");
  outputs.fetch(staging_, device_.stream());

  for (const Member& member : members) {
    if (member.sampled != nullptr && outputs.at(member.sampled).status != RowStatus::ok) continue;
    if (member.status != nullptr && outputs.at(member.status) != RowStatus::ok) continue;
    SamplingResult& result = *member.result;
    result.done = true;
    if (member.sampled != nullptr) result.token = outputs.at(member.sampled).token;
    if (member.chosen != nullptr) result.chosen = as_token_logprob(outputs.at(member.chosen));
    for (std::int32_t i = 0; member.top != nullptr && i < member.task->num_top; ++i) {
      const TokenLogprob top = as_token_logprob(outputs.at(member.top + i));
      if (top.token < 0) break;
      result.top.push_back(top);
    }
  }
}

}  // namespace pagedcore::cuda
