// Same request, same bits: what is observed of a request, and the engines that must not change it, whatever the device.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "fake_executor.hpp"
#include "tiny_model.hpp"

namespace same_bits {

using namespace pagedcore;

using Bits = std::vector<std::vector<std::uint32_t>>;  // of samples

/// A request of a prompt of its own.
inline EngineRequest request(std::size_t prompt, std::uint32_t seed, std::uint32_t max_tokens, std::int32_t logprobs) {
  EngineRequest r;
  for (std::size_t i = 0; i < prompt; ++i) r.prompt.push_back(static_cast<TokenId>((seed * 13 + i * i * 5 + i) % 151));
  r.sampling.max_tokens = max_tokens;
  r.sampling.logprobs = logprobs;
  r.sampling.seed = seed;
  return r;
}

/// A sample as bits.
inline std::vector<std::uint32_t> bits(const fake::Collected& c) {
  std::vector<std::uint32_t> out;
  for (const TokenId t : c.tokens) out.push_back(static_cast<std::uint32_t>(t));
  for (const PositionLogprobs& p : c.logprobs) {
    out.push_back(std::bit_cast<std::uint32_t>(p.chosen.logprob));
    for (const TokenLogprob& t : p.top) {
      out.push_back(static_cast<std::uint32_t>(t.token));
      out.push_back(std::bit_cast<std::uint32_t>(t.logprob));
    }
  }
  return out;
}

/// All samples of the observed requests, submitted to one engine among `strangers` others.
inline Bits run(Engine& engine, const std::vector<EngineRequest>& observed, std::uint32_t strangers = 0) {
  std::vector<RequestId> ids;
  const auto count = static_cast<std::uint32_t>(observed.size());
  for (std::uint32_t i = 0; i < std::max(strangers, count); ++i) {
    if (i < strangers) engine.submit(request(3 + i * 5 % 90, 1000 + i, 5 + i, 0));
    if (i < count) ids.push_back(engine.submit(observed[i]));
  }
  const fake::Collection all = fake::drain(engine);
  Bits result;
  for (std::size_t i = 0; i < observed.size(); ++i) {
    for (std::uint32_t sample = 0; sample < observed[i].sampling.n; ++sample) {
      const fake::Collected& c = all.at(ids[i], sample);
      CHECK(c.error == "");
      CHECK(c.tokens.size() == observed[i].sampling.max_tokens);
      CHECK(c.logprobs.size() == observed[i].sampling.max_tokens);
      result.push_back(bits(c));
    }
  }
  CHECK(engine.stats().at("blocks_used") == 0);
  return result;
}

/// Each observed request alone in a fresh engine.
inline Bits run_alone(const tiny::TinyModel& model, const EngineConfig& config,
                      const std::vector<EngineRequest>& observed) {
  Bits result;
  for (const EngineRequest& r : observed) {
    Engine engine(model.description, model.weights, config);
    for (auto& sample : run(engine, {r})) result.push_back(std::move(sample));
  }
  return result;
}

struct Disturbance {
  const char* what;
  std::uint32_t strangers = 0;
  std::uint32_t preemption_period = 0;  // in steps; 0: none is forced
  PreemptionMode preemption = PreemptionMode::recompute;
};

/// The observed requests have the bits `alone` in an engine of `config` under the disturbance.
inline void check_same(const tiny::TinyModel& model, const EngineConfig& config,
                       const std::vector<EngineRequest>& observed, const Bits& alone, const Disturbance& d) {
  CAPTURE(d.what);
  Engine engine(model.description, model.weights, config);
  engine.force_preemption(d.preemption_period, d.preemption);
  CHECK(run(engine, observed, d.strangers) == alone);
  if (d.preemption_period == 0) return;
  const bool swap = d.preemption == PreemptionMode::swap;
  CHECK(engine.stats().at(swap ? "preemptions_swap" : "preemptions_recompute") > 0);
}

/// Twice in one engine: the second time prefixes are cached, those of outputs too.
inline void check_same_when_cached(Engine& engine, const std::vector<EngineRequest>& observed, const Bits& alone) {
  CHECK(run(engine, observed) == alone);
  CHECK(run(engine, observed) == alone);
  CHECK(engine.stats().at("prefix_hit_tokens") > 0);
}

}  // namespace same_bits
