// How long outputs become, learned from those that ended.
//
// A life table (Kaplan and Meier, 1958): an output that max_tokens cut off says that it is longer than that, not how
// long. Lengths are kept by buckets of an eighth of an octave, and the past fades.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace pagedcore::sched {

class OutputLengths {
 public:
  OutputLengths() noexcept { surviving_.fill(1.0); }

  /// A sample has ended with so many tokens. `cut_off`: it would have gone on.
  void add(std::uint32_t tokens, bool cut_off) noexcept {
    for (std::size_t i = 0; i < kBuckets; ++i) {
      ended_[i] *= kFading;
      left_[i] *= kFading;
    }
    left_[bucket(tokens)] += 1.0;
    if (!cut_off) ended_[bucket(tokens)] += 1.0;
    double at_risk = 1.0;  // and one that never ends: what was not seen yet is not impossible
    for (const double left : left_) at_risk += left;
    for (std::size_t i = 0; i < kBuckets; ++i) {
      surviving_[i + 1] = surviving_[i] * (1.0 - ended_[i] / at_risk);
      at_risk -= left_[i];
    }
  }

  /// The chance that an output of `has` tokens grows by `more`. 1 as long as nothing was learned.
  double chance(std::uint32_t has, std::uint32_t more) const noexcept {
    return surviving_[bucket(has + more)] / surviving_[bucket(has)];
  }

 private:
  static constexpr double kFading = 0.998;  // the last 500 or so count
  static constexpr std::size_t kBuckets = 240;

  /// Exact below 8, then by the three bits behind the leading one.
  static std::size_t bucket(std::uint32_t tokens) noexcept {
    if (tokens < 8) return tokens;
    const int shift = std::bit_width(tokens) - 4;
    return static_cast<std::size_t>(shift) * 8 + (tokens >> shift);
  }

  std::array<double, kBuckets> ended_{}, left_{};
  std::array<double, kBuckets + 1> surviving_{};  // the chance to come as far as the beginning of a bucket; never 0
};

}  // namespace pagedcore::sched
