// One sample's place in a constraint.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "pagedcore/constraint.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore::sampling {

/// For one thread at a time. Copying forks it. Made of nothing, it constrains nothing.
class Matcher {
 public:
  Matcher() noexcept = default;
  explicit Matcher(std::shared_ptr<const Constraint> constraint);  // throws std::bad_alloc
  Matcher(const Matcher& other);
  Matcher(Matcher&& other) noexcept;
  Matcher& operator=(Matcher other) noexcept;
  ~Matcher();

  bool constrains() const noexcept { return matcher_ != nullptr; }
  /// A token has come. It is told to the matcher with the next mask, where a thread has time for it.
  void take(TokenId token) noexcept { taken_ = token; }
  /// What may come next, as a TokenMask. Asked again before another token came, it says the same. Throws
  /// InvalidArgument with the matcher's reason when it has failed, and when it allows nothing.
  void find_allowed(std::size_t vocab_size, std::vector<std::uint32_t>& mask);

 private:
  [[noreturn]] void fail(const char* what);

  std::shared_ptr<const Constraint> constraint_;
  void* matcher_ = nullptr;
  TokenId taken_ = -1;
};

}  // namespace pagedcore::sampling
