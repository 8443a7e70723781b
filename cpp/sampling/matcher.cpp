#include "sampling/matcher.hpp"

#include <algorithm>
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

Matcher::Matcher(std::shared_ptr<const Constraint> constraint)
    : constraint_(std::move(constraint)), matcher_(constraint_ ? constraint_->clone() : nullptr) {}

Matcher::Matcher(const Matcher& other)
    : constraint_(other.constraint_),
      matcher_(other.constrains() ? checked(constraint_->table().clone(other.matcher_)) : nullptr),
      taken_(other.taken_) {}

Matcher::Matcher(Matcher&& other) noexcept
    : constraint_(std::move(other.constraint_)),
      matcher_(std::exchange(other.matcher_, nullptr)),
      taken_(std::exchange(other.taken_, -1)) {}

Matcher& Matcher::operator=(Matcher other) noexcept {
  constraint_.swap(other.constraint_);
  std::swap(matcher_, other.matcher_);
  std::swap(taken_, other.taken_);
  return *this;
}

Matcher::~Matcher() {
  if (matcher_ != nullptr) constraint_->table().free(matcher_);
}

void Matcher::fail(const char* what) {
  const auto why = constraint_->table().error;
  const char* reason = why != nullptr ? why(matcher_) : nullptr;
  throw InvalidArgument(
      str("the structured output's matcher ", what, reason != nullptr ? ": " : "", reason != nullptr ? reason : ""));
}

void Matcher::find_allowed(std::size_t vocab_size, std::vector<std::uint32_t>& mask) {
  const ConstraintTable& table = constraint_->table();
  mask.assign((vocab_size + 31) / 32, 0);
  if (taken_ >= 0 && table.consume_token(matcher_, static_cast<std::uint32_t>(taken_)) != 0)
    fail("refused a token that it had allowed");
  taken_ = -1;
  if (table.compute_mask(matcher_, mask.data(), mask.size() * sizeof(mask[0])) != 0)
    fail("could not say which tokens may come next");
  if (vocab_size % 32 != 0) mask.back() &= (1u << vocab_size % 32) - 1u;
  if (std::ranges::all_of(mask, [](std::uint32_t word) { return word == 0; })) fail("allows no token");
}

}  // namespace sampling
}  // namespace pagedcore
