// One sample's place in a constraint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "pagedcore/constraint.hpp"
#include "pagedcore/sampling.hpp"
#include "pagedcore/types.hpp"
#include "sampling/logits_processors.hpp"

namespace pagedcore::sampling {

/// For one thread at a time. Copying forks it. Made of nothing, it constrains nothing.
class Matcher {
 public:
  Matcher() noexcept = default;
  explicit Matcher(std::shared_ptr<const Constraint> constraint);  // throws std::bad_alloc
  Matcher(const Matcher& other);
  Matcher(Matcher&& other) noexcept = default;
  Matcher& operator=(Matcher other) noexcept;
  ~Matcher() = default;

  bool constrains() const noexcept { return place_ != nullptr; }
  /// A token has come: the first of the run, where there is one. It is told to the caller's matcher with the next mask,
  /// where a thread has time for it.
  void take(TokenId token) noexcept;
  /// What may come next, until the next call of another method. Asked again before another token came, it says the
  /// same. Throws InvalidArgument with the matcher's reason when it has failed, and when it allows nothing.
  TokenMask allowed(std::size_t vocab_size);

  /// Follows the tokens that come whatever is drawn: for as long as the mask leaves one, which `params` allow and which
  /// ends nothing, up to `most`. The mask behind them is found too. What fails is told by allowed(), in its turn.
  void look_ahead(std::size_t vocab_size, const SamplingParams& params, std::size_t most) noexcept;
  /// The tokens that come next, as far as look_ahead() went and they have not come yet.
  std::span<const TokenId> run() const noexcept { return run_; }

 private:
  struct Free {
    void (*free)(void*);
    void operator()(void* matcher) const noexcept { free(matcher); }
  };
  using Place = std::unique_ptr<void, Free>;

  void advance(std::size_t vocab_size) noexcept;
  [[noreturn]] void fail() const;

  std::shared_ptr<const Constraint> constraint_;
  Place place_{nullptr, {nullptr}};  // behind the run
  TokenId taken_ = -1;               // has come, and place_ does not know
  std::vector<TokenId> run_;
  enum class Mask : std::uint8_t { unknown, known, is_empty, failed, refused };
  Mask state_ = Mask::unknown;
  std::vector<std::uint32_t> mask_;  // known: what may come behind the run
  std::vector<std::uint32_t> one_;   // of the first token of the run
};

}  // namespace pagedcore::sampling
