// What happens to a row of logits before temperature: penalties, bias, masks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "pagedcore/sampling.hpp"
#include "sampling/scratch.hpp"

namespace pagedcore::sampling {

/// The token as an index. Throws InvalidArgument when it is not in the vocabulary.
std::size_t index_of(TokenId token, std::size_t vocab_size);

/// The row to sample from: `logits` itself when the parameters change nothing, else an edited copy in `scratch.row`. A
/// token that may not be chosen has -inf. Throws InvalidArgument for a token outside the row.
std::span<const float> process_logits(std::span<const float> logits, const SampleContext& context, Scratch& scratch);

/// What is allowed and banned, and stop tokens before min_tokens, as a mask: bit t % 32 of word t / 32 says that token
/// t may be chosen. Empty where all may. Throws InvalidArgument for a token outside the vocabulary.
std::vector<std::uint32_t> token_mask(const SampleContext& context, std::size_t vocab_size);

}  // namespace pagedcore::sampling
