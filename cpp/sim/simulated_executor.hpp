// The executor that computes nothing: it prices a plan on a virtual clock and answers with made-up tokens.
#pragma once

#include <cstdint>

#include "kv/flat_map.hpp"
#include "pagedcore/simulation.hpp"

namespace pagedcore::sim {

/// A 64-bit mix (the finaliser of SplitMix64, Steele, Lea and Flood 2014).
inline std::uint64_t mix(std::uint64_t value) noexcept {
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

inline TokenId token_of(std::uint64_t content, std::uint64_t offset) noexcept {
  return static_cast<TokenId>(mix(content * 0x9e3779b97f4a7c15u + offset) & 0x7fffffff);
}

class SimulatedExecutor final : public Executor {
 public:
  SimulatedExecutor(const CostModel& cost, double beam_mixing) : cost_(cost), beam_mixing_(beam_mixing) {}

  /// Of a beam search: how long it goes on.
  void add_search(RequestId request, std::uint32_t width, std::uint32_t max_tokens);
  /// A request whose samples stop by themselves when they have so many tokens, prompt included.
  void stop_at(RequestId request, std::uint32_t tokens) { stops_[raw(request)] = tokens; }
  /// Advances the clock.
  StepResult run(const StepPlan& plan) override;

  double now = 0.0;

 private:
  struct Search {
    std::uint32_t width = 0;
    std::uint32_t left = 0;     // steps
    std::uint64_t sampled = 0;  // the step that sampled it last
  };

  BeamResult advance(RequestId request, Search& search) const;

  CostModel cost_;
  double beam_mixing_;
  kv::FlatMap<Search> searches_;
  kv::FlatMap<std::uint32_t> stops_;
};

}  // namespace pagedcore::sim
