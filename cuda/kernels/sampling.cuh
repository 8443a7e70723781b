// The kernels of sampling.hpp: one block of threads a row.
#pragma once

#include "kernels/draw.cuh"
#include "kernels/philox.cuh"
#include "kernels/sampling.hpp"

namespace pagedcore::cuda {

__device__ inline bool is_banned(float x) { return order_key(x) <= kKeyOfMinusInfinity; }

/// A finite logit stays finite: one that overflows downwards is not banned. Of a banned token nothing changes.
__device__ inline float saturate(float x) {
  constexpr float kLargest = 3.402823466e38f;
  return fminf(fmaxf(x, -kLargest), kLargest);
}

/// counts[t] becomes how often t occurs in the output, plus kSeen where it occurs in the output or, `with_prompt`,
/// there.
inline constexpr std::uint32_t kSeen = 0x80000000u;
__device__ inline void count_tokens(const ProcessTask& task, int vocab, bool with_prompt) {
  for (int i = threadIdx.x; i < vocab; i += kRowThreadsPerBlock) task.counts[i] = 0;
  __syncthreads();
  if (with_prompt)
    for (int i = threadIdx.x; i < task.prompt_size; i += kRowThreadsPerBlock)
      atomicOr(&task.counts[task.prompt[i]], kSeen);
  for (int i = threadIdx.x; i < task.output_size; i += kRowThreadsPerBlock) {
    atomicOr(&task.counts[task.output[i]], kSeen);
    atomicAdd(&task.counts[task.output[i]], 1u);
  }
  __syncthreads();
}

__device__ inline float penalised(const ProcessTask& task, float x, std::uint32_t count) {
  if (count == 0 || is_banned(x)) return x;
  if (task.repetition_penalty != 1.0f)
    x = x > 0.0f ? __fdiv_rn(x, task.repetition_penalty) : __fmul_rn(x, task.repetition_penalty);
  const std::uint32_t in_output = count & ~kSeen;
  if (in_output > 0) {
    const float frequency = __fmul_rn(task.frequency_penalty, static_cast<float>(in_output));
    x = __fadd_rn(x, -__fadd_rn(frequency, task.presence_penalty));
  }
  return saturate(x);
}

/// The thread of a token's first bias applies all of that token's, in order.
__device__ inline void add_biases(const ProcessTask& task) {
  for (int i = threadIdx.x; i < task.num_bias; i += kRowThreadsPerBlock) {
    const TokenId token = task.bias_tokens[i];
    bool first = true;
    for (int j = 0; j < i && first; ++j) first = task.bias_tokens[j] != token;
    if (!first) continue;
    float x = task.out[token];
    for (int j = i; j < task.num_bias; ++j) {
      if (task.bias_tokens[j] != token) continue;
      const float sum = __fadd_rn(x, task.bias[j]);
      x = is_banned(x) || is_banned(task.bias[j]) ? sum : saturate(sum);
    }
    task.out[token] = x;
  }
}

static __global__ void __launch_bounds__(kRowThreadsPerBlock, 4)
    process_logits(const ProcessTask* tasks, const int vocab) {
  const ProcessTask task = tasks[blockIdx.x];
  if (task.counts != nullptr) count_tokens(task, vocab, task.repetition_penalty != 1.0f);
  for (int i = threadIdx.x; i < vocab; i += kRowThreadsPerBlock) {
    float x = task.logits[i];
    if (task.counts != nullptr) x = penalised(task, x, task.counts[i]);
    // A banned token needs no bias: none makes it possible again.
    if (task.mask != nullptr && (task.mask[i / 32] >> i % 32 & 1u) == 0) x = logit_of_key(kKeyOfMinusInfinity);
    task.out[i] = x;
  }
  __syncthreads();
  add_biases(task);
}

/// In every thread: the first token whose key is `key`.
__device__ inline TokenId first_with_key(const float* logits, int size, std::uint32_t key,
                                         std::uint32_t (&per_warp)[kRowWarps]) {
  std::uint32_t first = 0xFFFFFFFFu;
  for (int i = threadIdx.x; i < size && first == 0xFFFFFFFFu; i += kRowThreadsPerBlock)
    if (order_key(logits[i]) == key) first = i;
  first = __reduce_min_sync(kAllLanes, first);
  const unsigned own = warp_index();
  if (lane_index() == 0) per_warp[own] = first;
  __syncthreads();
  for (int warp = 0; warp < kRowWarps; ++warp) first = min(first, per_warp[warp]);
  return static_cast<TokenId>(first);
}

/// A list that holds the k most likely of all tokens, or all that are possible.
__device__ inline void collect_best(RowSelector& list, const Row& row, int k) {
  for (float below = 8.0f; below <= 32.0f; below *= 2.0f) {  // of the maximum, in logits
    list.collect([&](float logit) { return row.max - logit <= below; });
    if (list.size() >= k) return;
  }
  list.collect_possible();
}

/// Narrows a list to the tokens that min-p, top-k and top-p leave, as cpp/sampling/truncation.cpp.
__device__ inline void truncate(RowSelector& list, DrawScratch& draw, const Row& row, const SampleTask& task) {
  const double top_p = static_cast<double>(task.top_p);
  const auto likely = [&](float logit) { return row.weight(logit) >= task.min_p; };
  if (task.top_k > 0 && task.top_k < row.size) {
    collect_best(list, row, task.top_k);
    list.keep_best(task.top_k);
    if (task.min_p > 0.0f) list.keep_if(likely);
  } else if (task.min_p > 0.0f) {
    list.collect(likely);
  } else {
    // Top-p alone: its tokens are usually a handful near the maximum, so look there first.
    sum_blocks(draw, row.blocks(), [&](int b) { return block_weight(row, b); });
    const double target = top_p * total_of(draw, row.blocks());
    float depth = 4.0f;
    for (list.collect_to_depth(depth); depth < 88.0f && list.mass() < target; list.collect_to_depth(depth))
      depth *= 2.0f;
    list.keep_mass(target);
    return;
  }
  if (task.top_p < 1.0f) list.keep_mass(top_p * list.mass());
}

static __global__ void __launch_bounds__(kRowThreadsPerBlock, 4)
    sample_rows(const SampleTask* tasks, SampledToken* results, const int vocab) {
  PC_SHARED(RowScratch, scratch);
  PC_SHARED(DrawScratch, draw);
  PC_SHARED(std::uint32_t[3][kRowWarps], per_warp);
  const SampleTask task = tasks[blockIdx.x];
  SampledToken& result = results[blockIdx.x];

  std::uint32_t key = largest_key(task.model_logits, vocab, per_warp[0]);
  if (key >= kKeyOfInfinity || key <= kKeyOfMinusInfinity) {
    if (threadIdx.x == 0) result = {-1, RowStatus::corrupt};
    return;
  }
  if (task.logits != task.model_logits) key = largest_key(task.logits, vocab, per_warp[1]);
  if (key <= kKeyOfMinusInfinity) {
    if (threadIdx.x == 0) result = {-1, RowStatus::empty};
    return;
  }
  const Row row{task.logits, vocab, logit_of_key(key), task.scale};
  TokenId token;
  bool undecided = false;
  if (task.scale == 0.0f) {
    token = first_with_key(task.logits, vocab, key, per_warp[2]);
  } else {
    const double u = uniform(task.seed, task.sample, task.position);
    if (task.min_p > 0.0f || task.top_p < 1.0f || (task.top_k > 0 && task.top_k < vocab)) {
      RowSelector list(scratch, row, task.candidates);
      truncate(list, draw, row, task);
      undecided = list.is_undecided();
      token = draw_from_list(draw, list, u, undecided);
    } else {
      sum_blocks(draw, row.blocks(), [&](int b) { return block_weight(row, b); });
      token = draw_from_row(draw, row, u);
    }
  }
  if (threadIdx.x != 0) return;
  if (undecided)
    result = {-1, RowStatus::undecided};
  else
    result = {token, RowStatus::ok};
}

/// By a whole block: how many tokens of a row rank above `token`. The count is thread 0's only.
__device__ inline std::uint32_t count_above(const float* logits, int size, TokenId token,
                                            std::uint32_t (&per_warp)[kRowWarps]) {
  const std::uint32_t key = order_key(logits[token]);
  std::uint32_t count = 0;
  for (int i = threadIdx.x; i < size; i += kRowThreadsPerBlock) {
    const std::uint32_t other = order_key(logits[i]);
    count += other > key || (other == key && i < token);
  }
  count = __reduce_add_sync(kAllLanes, count);
  const unsigned own = warp_index();
  if (lane_index() == 0) per_warp[own] = count;
  __syncthreads();
  count = 0;
  for (int warp = 0; warp < kRowWarps; ++warp) count += per_warp[warp];
  return count;
}

/// Writes the list in order, each entry to the place that it counts for itself: no sort, O(entries^2 / threads).
template <class LogprobOf>
__device__ inline void write_ordered(const RowSelector& list, const LogprobTask& task, const LogprobOf& logprob_of) {
  const auto value = [&](int i) {
    return task.order == CandidateOrder::logits ? list.logit(i) : logprob_of(list.token(i));
  };
  for (int i = threadIdx.x; i < task.num_top; i += kRowThreadsPerBlock) {
    if (i >= list.size()) {
      task.top[i] = {};
      continue;
    }
    const float own = value(i);
    int place = 0;
    for (int j = 0; j < list.size(); ++j) {
      const float other = value(j);
      place += other > own || (other == own && j < i);
    }
    task.top[place] = {list.token(i), logprob_of(list.token(i)), place + 1};
  }
}

static __global__ void __launch_bounds__(kRowThreadsPerBlock, 4)
    row_logprobs(const LogprobTask* tasks, const int vocab) {
  PC_SHARED(RowScratch, scratch);
  PC_SHARED(DrawScratch, sums);
  PC_SHARED(std::uint32_t[2][kRowWarps], per_warp);
  const LogprobTask task = tasks[blockIdx.x];

  const std::uint32_t key = largest_key(task.logits, vocab, per_warp[0]);
  const bool corrupt = key >= kKeyOfInfinity || key <= kKeyOfMinusInfinity;
  if (threadIdx.x == 0 && task.status != nullptr) *task.status = corrupt ? RowStatus::corrupt : RowStatus::ok;
  if (corrupt) return;
  const Row row{task.logits, vocab, logit_of_key(key), 1.0f};
  sum_blocks(sums, row.blocks(), [&](int b) { return block_weight(row, b); });
  const double log_sum = static_cast<double>(row.max) + log(total_of(sums, row.blocks()));
  const auto logprob_of = [&](TokenId t) { return static_cast<float>(static_cast<double>(task.logits[t]) - log_sum); };

  // By a shuffle, so that the compiler knows the condition to be the same in all lanes.
  const TokenId token = task.token != nullptr ? __shfl_sync(kAllLanes, task.token->token, 0) : -1;
  if (token >= 0) {
    const std::uint32_t above = count_above(task.logits, vocab, token, per_warp[1]);
    if (threadIdx.x == 0) *task.chosen = {token, logprob_of(token), static_cast<std::int32_t>(above) + 1};
  }
  if (task.num_top > 0) {
    RowSelector list(scratch, row, task.candidates);
    collect_best(list, row, task.num_top);
    list.keep_best(task.num_top);
    write_ordered(list, task, logprob_of);
  }
}

}  // namespace pagedcore::cuda
