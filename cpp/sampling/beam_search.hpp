// Beam search (PagedAttention, section 4.4): which beams go on with which tokens, and which hypotheses are the best.
//
// Keeps scores and token histories; who holds which KV blocks is the scheduler's business. Histories are a tree of
// back-pointers, so that a step costs the same however long the beams are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pagedcore/sampling.hpp"
#include "sampling/logits_processors.hpp"
#include "sampling/scratch.hpp"

namespace pagedcore::sampling {

struct BeamCandidate {
  TokenId token = -1;
  float logprob = 0.0f;
};

/// The `count` most likely tokens of a row and their log-probabilities, most likely first, ties by token id; fewer when
/// the row has fewer that are possible. `mask`: what may be chosen, as a TokenMask; log-probabilities are those
/// of the whole row all the same. A partial selection, no sort of the row. Throws as sample(). Thread-safe.
std::vector<BeamCandidate> beam_candidates(std::span<const float> logits, std::size_t count, Scratch& scratch,
                                           TokenMask mask = {});

/// One search. Not thread-safe.
class BeamSearch {
 public:
  /// A running beam of the next step: the running beam `parent` of this one, with one token more.
  struct Child {
    std::uint32_t parent = 0;
    TokenId token = -1;
  };
  struct Hypothesis {
    std::vector<TokenId> tokens;
    float score = 0.0f;
    bool stopped = false;  // by a stop token, which is its last; else by max_tokens
  };

  /// Starts with one running beam: the prompt.
  explicit BeamSearch(const BeamSearchParams& params);

  /// How many candidates of each beam advance() wants: with that many, `width` remain that do not stop.
  std::size_t candidates_per_beam() const noexcept { return keep_; }
  /// One list for each running beam, in their order. Returns the beams that run on, best first; none: the search has
  /// ended. Strong guarantee: a call that throws (std::bad_alloc) has changed nothing.
  std::vector<Child> advance(std::span<const std::vector<BeamCandidate>> candidates);

  bool ended() const noexcept { return running_.empty(); }
  /// The best ones so far, best first, at most `n`.
  std::vector<Hypothesis> hypotheses() const;
  /// The longest beginning that the best hypothesis will have whatever comes: what the running beams and the best
  /// hypothesis so far have in common.
  std::vector<TokenId> stable() const;

 private:
  static constexpr std::int32_t kRoot = -1;
  struct Node {
    std::int32_t parent = kRoot;
    std::uint32_t depth = 0;  // tokens up to here
    TokenId token = -1;
  };
  struct Beam {
    std::int32_t node = kRoot;
    float score = 0.0f;  // sum of log-probabilities
  };
  struct Finished {
    std::int32_t node = kRoot;
    float score = 0.0f;  // with the length penalty
    bool stopped = false;
  };

  bool is_stop(TokenId token) const noexcept;
  float normalised(float sum, std::uint32_t length) const noexcept;
  bool can_improve(float best_running, const std::vector<Finished>& finished) const noexcept;
  std::uint32_t depth(std::int32_t node) const noexcept;
  std::int32_t common_ancestor(std::int32_t a, std::int32_t b) const noexcept;
  std::vector<TokenId> tokens(std::int32_t node) const;

  BeamSearchParams params_;
  std::size_t keep_;
  std::uint32_t length_ = 0;  // of the running beams
  std::vector<Node> nodes_;
  std::vector<Beam> running_;       // best first
  std::vector<Finished> finished_;  // best first, at most `width`
};

}  // namespace pagedcore::sampling
