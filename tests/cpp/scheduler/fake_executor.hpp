// An executor without a model: a KV value is a hash of everything it depends on, read through the block tables like the
// real thing, and a token is a function of the last KV value. So every output is a pure function of the prompt,
// whatever the schedule was, and a wrong table, copy or prefix hit shows in the tokens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "pagedcore/scheduler.hpp"

namespace fake {

using namespace pagedcore;

using Value = std::uint64_t;

inline Value mix(Value value, std::uint64_t word) {
  value = (value ^ word) * 0x9e3779b97f4a7c15u;
  return value ^ (value >> 31);
}

inline Value kv_value(Value before, TokenId token) { return mix(before, static_cast<std::uint64_t>(token) + 1); }

struct Next {
  TokenId token;
  bool stop;
};

/// What a sample draws after a row. Samples of one request differ; about one token in `stop_every` ends the sample.
inline Next draw(Value last, std::uint32_t sample, std::uint64_t stop_every) {
  const Value value = mix(last, sample + 77);
  return {static_cast<TokenId>(value % 3), stop_every != 0 && (value >> 20) % stop_every == 0};
}

/// What a sample generates, computed alone.
inline std::vector<TokenId> expected_output(const SchedulerRequest& request, std::uint32_t sample,
                                            std::uint64_t stop_every) {
  Value value = 0;
  for (const TokenId token : request.prompt) value = kv_value(value, token);
  std::vector<TokenId> output;
  while (output.size() < request.max_tokens) {
    const Next next = draw(value, sample, stop_every);
    output.push_back(next.token);
    if (next.stop) break;
    value = kv_value(value, next.token);
  }
  return output;
}

class Executor {
 public:
  Executor(const KvCacheConfig& cache, std::uint64_t stop_every_)
      : stop_every(stop_every_),
        block_size_(cache.block_size),
        memory_(cache.num_blocks, std::vector<Value>(cache.block_size, 0xdead)) {}

  StepResult run(const StepPlan& plan) {
    StepResult result{.step = plan.step, .tokens = {}, .failed = {}};
    // As one operation: no copy may read what another one wrote.
    std::vector<std::vector<Value>> sources;
    for (const BlockCopy& copy : plan.copies) sources.push_back(memory_.at(raw(copy.src)));
    for (std::size_t i = 0; i < plan.copies.size(); ++i) {
      std::copy_n(sources[i].begin(), plan.copies[i].num_tokens, memory_.at(raw(plan.copies[i].dst)).begin());
    }
    // All rows are written before any is read again: in a real step each layer does so.
    for (const ScheduledSequence& work : plan.sequences) {
      Value value = work.first_position == 0 ? 0 : at(plan, work, work.first_position - 1);
      for (std::uint32_t i = 0; i < work.num_rows; ++i) {
        value = kv_value(value, plan.tokens.at(work.first_row + i));
        at(plan, work, work.first_position + i) = value;
      }
    }
    for (const ScheduledSequence& work : plan.sequences) {
      const Value last = at(plan, work, work.first_position + work.num_rows - 1);
      for (std::uint32_t k = 0; k < work.num_samples; ++k) {
        const Next next = draw(last, work.first_sample + k, stop_every);
        result.tokens.push_back({work.sequence, work.first_sample + k, next.token, next.stop});
      }
    }
    return result;
  }

  std::uint64_t stop_every;

 private:
  Value& at(const StepPlan& plan, const ScheduledSequence& work, std::uint32_t position) {
    if (position / block_size_ >= work.table_size) throw std::out_of_range("position outside the block table");
    return memory_.at(raw(plan.block_tables.at(work.table_offset + position / block_size_))).at(position % block_size_);
  }

  std::uint32_t block_size_;
  std::vector<std::vector<Value>> memory_;
};

}  // namespace fake
