// Selection from a row without sorting it. A block of threads keeps a list of candidate tokens in ascending order, and
// narrows it: by a bound, to the k best, to the best that make up a mass.
//
// Rank order is (larger logit, then smaller token), everywhere.
#pragma once

#include "kernels/row_weights.cuh"
#include "pagedcore/types.hpp"

namespace pagedcore::cuda {

inline constexpr int kRowThreadsPerBlock = 256;
inline constexpr int kRowWarps = kRowThreadsPerBlock / 32;

/// Shared memory of one block. Slots alternate, so that one barrier serves each use.
struct RowScratch {
  std::uint32_t counts[2][kRowWarps];
  double measures[2][3][kRowWarps];
};

/// Two orders of adding up to `count` positive numbers give sums that differ by less than this share of the total, also
/// where one is compared with a product of the other.
__device__ inline double rounding_of(int count) { return (count + 64) * 0x1p-51; }

class RowSelector {
 public:
  __device__ RowSelector(RowScratch& scratch, const Row& row, TokenId* candidates)
      : scratch_(scratch), row_(row), tokens_(candidates), warp_(static_cast<int>(warp_index())) {}

  __device__ int size() const { return size_; }
  __device__ TokenId token(int i) const { return tokens_[i]; }
  __device__ float logit(int i) const { return row_.logits[tokens_[i]]; }
  __device__ float weight(int i) const { return row_.weight(logit(i)); }
  /// Whether what was kept could be another list, had the weights been added in another order.
  __device__ bool is_undecided() const { return undecided_; }

  /// The list becomes all tokens of the row that `keep(logit)`, which must hold for every logit above one it holds for.
  template <class Keep>
  __device__ void collect(const Keep& keep) {
    compact(
        row_.size, [&](int i) { return static_cast<TokenId>(i); }, keep);
  }
  /// Every token within `depth` of the maximum, in units of scaled logits.
  __device__ void collect_to_depth(float depth) {
    collect([&](float logit) { return row_.depth(logit) >= -depth; });
  }
  __device__ void collect_possible() {
    collect([](float logit) { return order_key(logit) > kKeyOfMinusInfinity; });
  }
  template <class Keep>
  __device__ void keep_if(const Keep& keep) {
    compact(
        size_, [&](int i) { return tokens_[i]; }, keep);
  }

  /// The list's weights, added in one fixed order.
  __device__ double mass() {
    double sum = 0.0;
    for (int i = threadIdx.x; i < size_; i += kRowThreadsPerBlock) sum += static_cast<double>(weight(i));
    return total(sum);
  }

  /// Keeps the k best of the list, or all if there are no more.
  __device__ void keep_best(int k) {
    if (size_ <= k) return;
    keep_measure<std::uint32_t>(static_cast<std::uint32_t>(k), [](float) { return 1u; });
  }
  /// Keeps the shortest prefix, in order of rank, whose mass reaches `target`; all if none does.
  __device__ void keep_mass(double target) {
    const double all = mass(), doubt = all * rounding_of(row_.size);  // the host may list more than this
    undecided_ = undecided_ || fabs(all - target) < doubt;
    if (all < target) return;
    const double margin =
        keep_measure<double>(target, [&](float logit) { return static_cast<double>(row_.weight(logit)); });
    undecided_ = undecided_ || margin < doubt;
  }

 private:
  __device__ double total(double x) {
    const int turn = turn_++ & 1;
    return block_sum(x, scratch_.measures[turn][0]);
  }

  /// Finds the largest key such that the tokens of at least that key measure `target` together, two bits at a time from
  /// the highest, then keeps what lies above it and as many of its own as are needed. Returns by how much the measure of
  /// what is kept, or of that less its last token, misses the target.
  template <class Measure, class Of>
  __device__ double keep_measure(Measure target, const Of& measure) {
    std::uint32_t key = 0;
    Measure above = 0;  // of all keys above those that begin like `key`
    for (int shift = 30; shift >= 0; shift -= 2) {
      Measure sums[3] = {};  // of digits 1, 2, 3
      for (int i = threadIdx.x; i < size_; i += kRowThreadsPerBlock) {
        const float x = logit(i);
        const std::uint32_t difference = (order_key(x) ^ key) >> shift;
        if (difference > 3) continue;
        const Measure m = difference > 0 ? measure(x) : Measure{0};
        if (difference == 1) sums[0] += m;
        if (difference == 2) sums[1] += m;
        if (difference == 3) sums[2] += m;
      }
      const int turn = turn_++ & 1;
#pragma unroll
      for (int digit = 0; digit < 3; ++digit) {
        const Measure sum = warp_sum(sums[digit]);
        if (lane_index() == 0) scratch_.measures[turn][digit][warp_] = static_cast<double>(sum);
      }
      __syncthreads();
      std::uint32_t chosen = 0;
      for (std::uint32_t digit = 3; digit >= 1; --digit) {
        double sum = 0.0;  // counts are exact too
        for (int warp = 0; warp < kRowWarps; ++warp) sum += scratch_.measures[turn][digit - 1][warp];
        if (above + static_cast<Measure>(sum) >= target) {
          chosen = digit;
          break;
        }
        above += static_cast<Measure>(sum);
      }
      key |= chosen << shift;
    }
    const Measure one = measure(logit_of_key(key));  // of each token with this key
    int ties = size_;
    if (one > Measure{0}) {
      ties = max(1, static_cast<int>(static_cast<double>(target - above) / static_cast<double>(one)) - 1);
      while (above + static_cast<Measure>(ties) * one < target && ties < size_) ++ties;
    }
    compact(
        size_, [&](int i) { return tokens_[i]; }, [&](float x) { return order_key(x) >= key; }, key, ties);
    const double missing = static_cast<double>(target) - static_cast<double>(above);
    return fmin(ties * static_cast<double>(one) - missing, missing - (ties - 1) * static_cast<double>(one));
  }

  template <class Source, class Keep>
  __device__ void compact(int count, const Source& source, const Keep& keep) {
    compact(count, source, keep, 0, count);
  }

  /// Replaces the list by source(i), i in [0, count), whose logit is kept, in order; of those whose key is `tie_key`,
  /// the first `ties` only. The source may be the list itself: an entry never moves up.
  template <class Source, class Keep>
  __device__ void compact(int count, const Source& source, const Keep& keep, std::uint32_t tie_key, int ties) {
    int kept = 0, tied = 0;
    for (int first = 0; first < count; first += kRowThreadsPerBlock) {
      const int i = first + static_cast<int>(threadIdx.x);
      const bool there = i < count;
      const TokenId token = there ? source(i) : 0;
      const float x = there ? row_.logits[token] : 0.0f;
      bool take = there && keep(x);
      if (ties < count) {
        const bool tie = take && order_key(x) == tie_key;
        int in_block;
        const int before = ordered_place(tie, in_block);
        if (tie && tied + before >= ties) take = false;
        tied += in_block;
      }
      int in_block;
      const int place = ordered_place(take, in_block);
      if (take) tokens_[kept + place] = token;
      kept += in_block;
    }
    size_ = kept;
    __syncthreads();  // the list is read by other threads than wrote it
  }

  /// How many threads before this one have `flag`, and how many in all.
  __device__ int ordered_place(bool flag, int& in_block) {
    const int turn = turn_++ & 1;
    const std::uint32_t warp_flags = __ballot_sync(kAllLanes, flag);
    if (lane_index() == 0) scratch_.counts[turn][warp_] = static_cast<std::uint32_t>(__popc(warp_flags));
    __syncthreads();
    int before = __popc(warp_flags & ((1u << lane_index()) - 1));
    in_block = 0;
#pragma unroll
    for (int w = 0; w < kRowWarps; ++w) {
      const int there = static_cast<int>(scratch_.counts[turn][w]);
      if (w < warp_) before += there;
      in_block += there;
    }
    return before;
  }

  RowScratch& scratch_;
  const Row& row_;
  TokenId* tokens_;
  const int warp_;
  int size_ = 0;
  unsigned turn_ = 0;
  bool undecided_ = false;
};

/// By a whole block: the largest key of a row, in every thread; or a key above that of infinity where a logit is NaN.
__device__ inline std::uint32_t largest_key(const float* logits, int size, std::uint32_t (&per_warp)[kRowWarps]) {
  std::uint32_t largest = 0;
  for (int i = threadIdx.x; i < size; i += kRowThreadsPerBlock) {
    const float x = logits[i];
    largest = max(largest, x == x ? order_key(x) : 0xFFFFFFFFu);
  }
  largest = __reduce_max_sync(kAllLanes, largest);
  const unsigned own = warp_index();
  if (lane_index() == 0) per_warp[own] = largest;
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < kRowWarps; ++warp) largest = max(largest, per_warp[warp]);
  return largest;
}

}  // namespace pagedcore::cuda
