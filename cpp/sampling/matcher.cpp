#include "sampling/matcher.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <new>
#include <utility>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

void* checked(void* clone) {
  if (clone == nullptr) throw std::bad_alloc();
  return clone;
}

}  // namespace

Constraint::Constraint(const ConstraintTable& table, void* matcher, std::size_t bytes,
                       std::shared_ptr<const void> keeps)
    : table_(table), matcher_(matcher), bytes_(bytes), keeps_(std::move(keeps)) {
  if (matcher == nullptr) throw InvalidArgument("a constraint needs a matcher, and it is null");
  if (table.compute_mask == nullptr || table.consume_token == nullptr || table.clone == nullptr ||
      table.free == nullptr)
    throw InvalidArgument("a constraint's table needs compute_mask, consume_token, clone and free: one is null");
}

Constraint::~Constraint() { table_.free(matcher_); }

void* Constraint::clone() const {
  const std::lock_guard lock(cloning_);
  return checked(table_.clone(matcher_));
}

namespace sampling {
namespace {

/// The only token of a mask; -1: there are none, or several.
TokenId only_token(std::span<const std::uint32_t> mask) noexcept {
  TokenId found = -1;
  for (std::size_t word = 0; word < mask.size(); ++word) {
    if (mask[word] == 0) continue;
    if (found >= 0 || !std::has_single_bit(mask[word])) return -1;
    found = static_cast<TokenId>(word * 32) + std::countr_zero(mask[word]);
  }
  return found;
}

/// Whether a draw that is left with this token comes to it, and goes on.
bool goes_on_with(const SamplingParams& params, TokenId token) noexcept {
  const auto has = [&](const std::vector<TokenId>& list) { return std::ranges::find(list, token) != list.end(); };
  const auto bans = [&](const auto& bias) { return bias.first == token && std::isinf(bias.second); };
  return !params.stops(token) && !has(params.banned_tokens) &&
         (params.allowed_token_ids.empty() || has(params.allowed_token_ids)) &&
         std::ranges::none_of(params.logit_bias, bans);
}

}  // namespace

Matcher::Matcher(std::shared_ptr<const Constraint> constraint) : constraint_(std::move(constraint)) {
  if (constraint_) place_ = Place(constraint_->clone(), {constraint_->table().free});
}

Matcher::Matcher(const Matcher& other)
    : constraint_(other.constraint_), taken_(other.taken_), run_(other.run_), state_(other.state_) {
  if (state_ == Mask::known) mask_ = other.mask_;
  if (other.constrains())
    place_ = Place(checked(constraint_->table().clone(other.place_.get())), {constraint_->table().free});
}

/// What `other` leaves goes with it: a place before its constraint.
Matcher& Matcher::operator=(Matcher other) noexcept {
  constraint_.swap(other.constraint_);
  place_.swap(other.place_);
  std::swap(taken_, other.taken_);
  run_.swap(other.run_);
  std::swap(state_, other.state_);
  mask_.swap(other.mask_);
  return *this;
}

void Matcher::take(TokenId token) noexcept {
  if (!run_.empty()) {
    run_.erase(run_.begin());
    return;
  }
  taken_ = token;
  if (state_ == Mask::known) state_ = Mask::unknown;
}

TokenMask Matcher::allowed(std::size_t vocab_size) {
  if (!run_.empty()) {
    one_.assign((vocab_size + 31) / 32, 0);
    const auto token = static_cast<std::size_t>(run_.front());
    one_[token / 32] = 1u << token % 32;
    return one_;
  }
  if (state_ == Mask::unknown) {
    mask_.resize((vocab_size + 31) / 32);
    advance(vocab_size);
  }
  if (state_ != Mask::known) fail();
  return mask_;
}

/// Tells the caller's matcher what has come, and asks it what may come next.
void Matcher::advance(std::size_t vocab_size) noexcept {
  const ConstraintTable& table = constraint_->table();
  state_ = Mask::refused;
  if (taken_ >= 0 && table.consume_token(place_.get(), static_cast<std::uint32_t>(taken_)) != 0) return;
  taken_ = -1;
  std::ranges::fill(mask_, 0u);
  state_ = Mask::failed;
  if (table.compute_mask(place_.get(), mask_.data(), mask_.size() * sizeof(mask_[0])) != 0) return;
  if (vocab_size % 32 != 0) mask_.back() &= (1u << vocab_size % 32) - 1u;
  const bool is_empty = std::ranges::all_of(mask_, [](std::uint32_t word) { return word == 0; });
  state_ = is_empty ? Mask::is_empty : Mask::known;
}

void Matcher::look_ahead(std::size_t vocab_size, const SamplingParams& params, std::size_t most) noexcept {
  try {
    mask_.resize((vocab_size + 31) / 32);
    run_.reserve(most);
  } catch (const std::bad_alloc&) {  // the next mask is asked for when it is needed, and a run is drawn token by token
    return;
  }
  if (state_ == Mask::unknown) advance(vocab_size);
  while (state_ == Mask::known && run_.size() < most) {
    const TokenId token = only_token(mask_);
    if (token < 0 || !goes_on_with(params, token)) return;
    run_.push_back(token);
    taken_ = token;
    advance(vocab_size);
  }
}

void Matcher::fail() const {
  const auto why = constraint_->table().error;
  const char* reason = why != nullptr ? why(place_.get()) : nullptr;
  const char* what = state_ == Mask::refused  ? "refused a token that it had allowed"
                     : state_ == Mask::failed ? "could not say which tokens may come next"
                                              : "allows no token";
  throw InvalidArgument(
      str("the structured output's matcher ", what, reason != nullptr ? ": " : "", reason != nullptr ? reason : ""));
}

}  // namespace sampling
}  // namespace pagedcore
