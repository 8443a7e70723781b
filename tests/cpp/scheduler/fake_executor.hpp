// An executor without a model: a KV value is a hash of everything it depends on, read through the block tables like the
// real thing, and a token is a function of the last KV value. So every output is a pure function of the prompt,
// whatever the schedule was, and a wrong table, copy or prefix hit shows in the tokens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <utility>
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

/// A request that arrives at second `id`, of a prompt of consecutive tokens from `apart * id` on.
inline SchedulerRequest request(std::uint64_t id, std::uint32_t prompt, std::uint32_t max_tokens,
                                std::uint64_t apart = 100) {
  SchedulerRequest request;
  request.id = RequestId{id};
  request.arrival = static_cast<double>(id);
  request.max_tokens = max_tokens;
  for (std::uint32_t i = 0; i < prompt; ++i) request.prompt.push_back(static_cast<TokenId>(apart * id + i));
  return request;
}

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

/// A beam search over four tokens: a beam's gain by a token is a function of its last KV value. Used twice, with
/// nothing in common but this: by the executor, slot by slot, and by expected_beams(), path by path.
struct BeamOption {
  std::uint64_t score;
  Value order;  // breaks ties alike whatever the places of the beams are
  std::uint32_t parent;
  TokenId token;
};

inline std::vector<BeamOption> best_options(const std::vector<std::pair<Value, std::uint64_t>>& beams,
                                            std::uint32_t width) {
  std::vector<BeamOption> options;
  for (std::uint32_t b = 0; b < beams.size(); ++b) {
    for (TokenId token = 0; token < 4; ++token) {
      const Value order = mix(beams[b].first, static_cast<std::uint64_t>(token) + 1000);
      options.push_back({beams[b].second + (order >> 20) % 50, order, b, token});
    }
  }
  std::ranges::sort(options, [](const BeamOption& a, const BeamOption& b) {
    return a.score != b.score ? a.score > b.score : a.order > b.order;
  });
  if (options.size() > width) options.resize(width);
  return options;
}

/// The tokens of the last beams of a search of max_tokens tokens, best first.
inline std::vector<std::vector<TokenId>> expected_beams(const SchedulerRequest& request) {
  Value value = 0;
  for (const TokenId token : request.prompt) value = kv_value(value, token);
  std::vector<std::pair<Value, std::uint64_t>> beams{{value, 0}};
  std::vector<std::vector<TokenId>> paths{{}};
  for (std::uint32_t length = 0; length < request.max_tokens; ++length) {
    std::vector<std::pair<Value, std::uint64_t>> next;
    std::vector<std::vector<TokenId>> next_paths;
    for (const BeamOption& option : best_options(beams, request.beam_width)) {
      next.push_back({kv_value(beams[option.parent].first, option.token), option.score});
      next_paths.push_back(paths[option.parent]);
      next_paths.back().push_back(option.token);
    }
    beams = std::move(next);
    paths = std::move(next_paths);
  }
  return paths;
}

class Executor {
 public:
  Executor(const KvCacheConfig& cache, std::uint64_t stop_every_)
      : stop_every(stop_every_),
        block_size_(cache.block_size),
        windows_(cache.windows.empty() ? std::vector<std::uint32_t>{0} : cache.windows),
        memory_(cache.num_blocks, std::vector<Value>(cache.block_size, 0xdead)),
        slots_(cache.num_swap_blocks, std::vector<Value>(cache.block_size, 0xbad)) {}

  StepResult run(const StepPlan& plan) {
    StepResult result{.step = plan.step, .tokens = {}, .failed = {}, .beams = {}, .swap_failed = {}};
    if (!plan.swap_outs.empty() && !plan.swap_ins.empty()) throw std::logic_error("a step swaps both ways");
    move(plan.swapped_out, plan.swap_outs, result, [&](const BlockSwap& swap, bool lost) {
      slots_.at(raw(swap.slot)) = memory_.at(raw(swap.block));
      if (lost) slots_.at(raw(swap.slot)).assign(block_size_, 0xbad);
    });
    move(plan.swapped_in, plan.swap_ins, result, [&](const BlockSwap& swap, bool lost) {
      memory_.at(raw(swap.block)) = slots_.at(raw(swap.slot));
      if (lost) memory_.at(raw(swap.block)).assign(block_size_, 0xbad);
    });
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
        for (std::uint32_t g = 0; g < windows_.size(); ++g) at(plan, work, work.first_position + i, g) = value + g;
      }
    }
    for (const ScheduledSequence& work : plan.sequences) {
      check_windows(plan, work);
      const Value last = at(plan, work, work.first_position + work.num_rows - 1);
      if (const auto search = searches.find(raw(work.request)); search != searches.end()) {
        if (work.num_samples > 0) search->second.rows.push_back({work.first_sample, last});
        continue;
      }
      for (std::uint32_t k = 0; k < work.num_samples; ++k) {
        const Next next = draw(last, work.first_sample + k, stop_every);
        result.tokens.push_back({work.sequence, work.first_sample + k, next.token, next.stop});
      }
    }
    for (auto& [id, search] : searches) {
      if (!search.rows.empty()) result.beams.push_back(advance(RequestId{id}, search));
    }
    return result;
  }

  struct Search {
    std::uint32_t width = 0;
    std::uint32_t max_tokens = 0;
    std::uint32_t length = 0;
    std::map<std::uint32_t, std::uint64_t> scores{{0, 0}};  // by place
    std::vector<std::pair<std::uint32_t, Value>> rows;      // of this step: place, last value
    std::vector<BeamChild> last;                            // the children that ended the search
  };
  std::map<std::uint64_t, Search> searches;  // by request; entered by the test

  std::uint64_t stop_every;
  std::uint64_t lose_every = 0;  // > 0: about one of so many moves to or from the swap space is lost

 private:
  template <class Move>
  void move(const std::vector<SwappedRequest>& requests, const std::vector<BlockSwap>& swaps, StepResult& result,
            const Move& each) {
    std::size_t next = 0;
    for (const SwappedRequest& swapped : requests) {
      bool failed = false;
      for (std::uint32_t i = 0; i < swapped.num_moves; ++i) {
        const bool lost = lose_every > 0 && mix(++moves_, 5) % lose_every == 0;
        each(swaps.at(next++), lost);
        failed = failed || lost;
      }
      if (failed) result.swap_failed.push_back(swapped.request);
    }
    if (next != swaps.size()) throw std::logic_error("moves that belong to nobody");
  }

  /// In all groups of layers the last row sees the same history, as far as their windows reach.
  void check_windows(const StepPlan& plan, const ScheduledSequence& work) {
    const std::uint32_t last = work.first_position + work.num_rows - 1;
    for (std::uint32_t g = 1; g < windows_.size(); ++g) {
      const std::uint32_t first = windows_[g] == 0 || last < windows_[g] ? 0 : last - windows_[g] + 1;
      for (std::uint32_t position = first; position <= last; ++position) {
        if (windows_[0] != 0 && position + windows_[0] <= last) continue;
        if (at(plan, work, position, g) != at(plan, work, position) + g) throw std::logic_error("groups disagree");
      }
    }
  }

  static BeamResult advance(RequestId id, Search& search) {
    if (search.rows.size() != search.scores.size()) throw std::logic_error("a beam is missing from its step");
    std::vector<std::pair<Value, std::uint64_t>> beams;
    for (const auto& [place, value] : search.rows) beams.push_back({value, search.scores.at(place)});
    std::vector<BeamChild> children;
    std::vector<std::uint64_t> scores;
    for (const BeamOption& option : best_options(beams, search.width)) {
      children.push_back({search.rows[option.parent].first, option.token});
      scores.push_back(option.score);
    }
    search.rows.clear();
    if (++search.length == search.max_tokens) {
      search.last = std::move(children);
      return {id, {}};
    }
    search.scores.clear();
    const std::vector<std::uint32_t> places = place_beams(children);
    for (std::size_t i = 0; i < children.size(); ++i) search.scores[places[i]] = scores[i];
    return {id, std::move(children)};
  }

  Value& at(const StepPlan& plan, const ScheduledSequence& work, std::uint32_t position, std::uint32_t group = 0) {
    if (position / block_size_ >= work.table_size) throw std::out_of_range("position outside the block table");
    const std::size_t entry = group * plan.table_entries + work.table_offset + position / block_size_;
    return memory_.at(raw(plan.block_tables.at(entry))).at(position % block_size_);
  }

  std::uint32_t block_size_;
  std::vector<std::uint32_t> windows_;
  std::vector<std::vector<Value>> memory_, slots_;
  std::uint64_t moves_ = 0;
};

}  // namespace fake
