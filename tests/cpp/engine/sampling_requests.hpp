// Requests that use all that sampling offers, and whether two engines answer them with the same bits.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <span>

#include "fake_executor.hpp"

namespace sampling_requests {

using namespace pagedcore;
using fake::Collected;
using fake::Collection;
using fake::drain;

constexpr std::int32_t kVocab = 151;

/// Makes the first five requests differ in how they are sampled: greedily, by temperature, several samples, penalties,
/// a scored prompt.
inline void vary_sampling(std::span<EngineRequest> list) {
  list[0].sampling.temperature = 0.0f;
  list[1].sampling.temperature = 0.5f;
  list[1].sampling.top_p = 0.9f;
  list[2].sampling.n = 3;
  list[2].sampling.top_k = 20;
  list[3].sampling.repetition_penalty = 1.3f;
  list[3].sampling.frequency_penalty = 0.5f;
  list[3].sampling.presence_penalty = 0.25f;
  list[4].sampling.prompt_logprobs = 2;
  list[4].sampling.logprobs = 3;
}

inline std::vector<EngineRequest> requests(std::uint32_t max_tokens) {
  std::vector<EngineRequest> list;
  for (std::uint32_t i = 0; i < 9; ++i) {
    EngineRequest r;
    for (std::uint32_t t = 0; t < 5 + 7 * i; ++t)
      r.prompt.push_back(static_cast<TokenId>((i * 13 + t * t * 5) % kVocab));
    r.sampling.max_tokens = max_tokens;
    r.sampling.seed = i;
    list.push_back(std::move(r));
  }
  vary_sampling(list);
  list[5].sampling.logit_bias = {{7, 4.0f}, {9, -2.0f}};
  list[5].sampling.banned_tokens = {1, 150};
  list[5].sampling.min_p = 0.05f;
  list[6].sampling.allowed_token_ids = {3, 32, 64, 100, 101};
  list[6].sampling.stop_token_ids = {3};
  list[6].sampling.min_tokens = max_tokens / 2;
  list[7].beam = BeamSearchParams{};
  list[7].beam->beam_width = 3;
  list[7].beam->n = 3;
  list[7].beam->max_tokens = max_tokens;
  list[8].sampling.logprobs = 0;
  return list;
}

/// All samples of the requests, and the hypotheses of the beam search.
template <class AnyEngine>
std::vector<Collected> run(AnyEngine& engine, std::uint32_t max_tokens) {
  const auto list = requests(max_tokens);
  std::vector<RequestId> ids;
  for (const EngineRequest& r : list) ids.push_back(engine.submit(r));
  const Collection all = drain(engine);
  std::vector<Collected> out;
  for (std::size_t i = 0; i < list.size(); ++i) {
    for (std::uint32_t sample = 0; sample < (list[i].beam ? 3 : list[i].sampling.n); ++sample)
      out.push_back(all.at(ids[i], sample));
  }
  return out;
}

inline void check_same(const std::vector<Collected>& got, const std::vector<Collected>& want) {
  const auto same = [](const TokenLogprob& a, const TokenLogprob& b) {
    return a.token == b.token && a.rank == b.rank &&
           std::bit_cast<std::uint32_t>(a.logprob) == std::bit_cast<std::uint32_t>(b.logprob);
  };
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(got[i].error == "");
    CHECK(got[i].tokens == want[i].tokens);
    CHECK(got[i].finish == want[i].finish);
    REQUIRE(got[i].logprobs.size() == want[i].logprobs.size());
    for (std::size_t t = 0; t < got[i].logprobs.size(); ++t) {
      CHECK(same(got[i].logprobs[t].chosen, want[i].logprobs[t].chosen));
      CHECK(std::ranges::equal(got[i].logprobs[t].top, want[i].logprobs[t].top, same));
    }
  }
}

}  // namespace sampling_requests
