// What requests will hold, for admissions that look ahead.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace pagedcore::sched {

/// Blocks that a set of requests will take beyond those it holds now. Time is counted in tokens: each of their
/// sequences gains one in a step.
class Outlook {
 public:
  static constexpr std::size_t kIntervals = 32;
  /// 8 tokens, then a third of an octave more and more; the last one has no end.
  static std::uint32_t begin(std::size_t interval) noexcept {
    static const std::array<std::uint32_t, kIntervals + 1> begins = [] {
      std::array<std::uint32_t, kIntervals + 1> all{};
      for (std::size_t i = 1; i < kIntervals; ++i) {
        all[i] = static_cast<std::uint32_t>(8.0 * std::exp2(static_cast<double>(i - 1) / 3.0));
      }
      all[kIntervals] = 1u << 31;
      return all;
    }();
    return begins[interval];
  }

  /// A request that may take so many blocks at most.
  void add(double blocks) noexcept { most_ += blocks; }

  /// A sequence with at most `left` tokens to come that holds `own` blocks which its end sets free. `chance(tokens)`:
  /// that it gains so many; `growth(tokens)`: the blocks that it takes for them.
  template <class Chance, class Growth>
  void add(std::uint64_t left, double own, const Chance& chance, const Growth& growth) noexcept {
    for (std::size_t i = 0; i < kIntervals; ++i) {
      const double lives = begin(i) < left ? chance(begin(i)) : 0.0;
      if (lives < 1e-3) {
        ended_[i] += own;
        return;
      }
      // As if it lived all through the interval: the demand in between is no higher.
      const double grows = growth(begin(i + 1));
      mean_[i] += lives * grows - (1.0 - lives) * own;
      variance_[i] += lives * (1.0 - lives) * (grows + own) * (grows + own);
    }
  }

  /// Whether so many blocks do whatever comes, as far as that was said, and with a probability of 95 % at any time to
  /// come, by the normal approximation of a sum of independent ends.
  bool fits(double available) const noexcept {
    constexpr double kDeviations = 1.645;
    if (most_ > available) return false;
    double ended = 0.0;
    for (std::size_t i = 0; i < kIntervals; ++i) {
      ended += ended_[i];
      if (mean_[i] - ended + kDeviations * std::sqrt(variance_[i]) > available) return false;
    }
    return true;
  }

 private:
  double most_ = 0.0;
  std::array<double, kIntervals> mean_{}, variance_{};
  std::array<double, kIntervals> ended_{};  // held by sequences whose end is certain from this interval on
};

}  // namespace pagedcore::sched
