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

/// What a constraint allows: bit t % 32 of word t / 32 is token t's. Empty: everything.
using TokenMask = std::span<const std::uint32_t>;

/// The row to sample from: `logits` itself when the parameters and the mask change nothing, else an edited copy in
/// `scratch.row`. A token that may not be chosen has -inf. Throws InvalidArgument for a token outside the row, and as
/// check_mask().
std::span<const float> process_logits(std::span<const float> logits, const SampleContext& context, Scratch& scratch,
                                      TokenMask given = {});

/// Throws InvalidArgument for a mask that has not one bit for each token.
void check_mask(TokenMask mask, std::size_t vocab_size);

/// What is allowed and banned, stop tokens before min_tokens, and what a constraint allows, as one mask: bit t % 32 of
/// word t / 32 says that token t may be chosen. Where the constraint leaves nothing but stop tokens they may be chosen
/// early. Empty where all may. Throws InvalidArgument for a token outside the vocabulary, and as check_mask().
std::vector<std::uint32_t> token_mask(const SampleContext& context, std::size_t vocab_size, TokenMask given = {});

}  // namespace pagedcore::sampling
