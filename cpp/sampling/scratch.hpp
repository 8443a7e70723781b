// Memory that sampling a row needs, kept from row to row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pagedcore/types.hpp"

namespace pagedcore::sampling {

/// Tokens in ascending order with their unnormalised probabilities exp((logit - max) / temperature).
struct Candidates {
  std::vector<TokenId> tokens;
  std::vector<float> logits;
  std::vector<float> weights;
};

/// As large as the largest vocabulary that it was used for. For one thread at a time; whoever samples on several
/// threads has one for each. Not thread-local: what a thread keeps is taken at its first touch, where the C library
/// ends the process if there is no memory for it.
struct Scratch {
  std::vector<float> row;
  std::vector<double> block_sums;
  Candidates candidates;
  std::vector<float> maxima;               // of groups of logits
  std::vector<std::uint32_t> order;        // of candidates
  std::vector<std::uint32_t> occurrences;  // [vocabulary] all zero between calls
  std::vector<std::size_t> occurring;      // tokens whose entry is not
  std::vector<TokenId> tokens;
};

}  // namespace pagedcore::sampling
