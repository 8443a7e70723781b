#include "sampling/top_k.hpp"

#include <algorithm>
#include <functional>
#include <limits>

#include "sampling/row_kernels.hpp"

namespace pagedcore::sampling {
namespace {

/// A value that at least k logits reach, if there are that many: the k-th largest of the maxima of disjoint groups,
/// since each of those k groups holds one such logit. Close to the k-th largest logit while k is small against the
/// number of groups.
float lower_bound_of_kth(std::span<const float> logits, std::size_t k, std::vector<float>& maxima) {
  maxima.resize(group_count(logits.size()));
  if (k == 0 || k > maxima.size()) return std::numeric_limits<float>::lowest();
  group_max(logits, maxima);
  const auto kth = maxima.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(maxima.begin(), kth, maxima.end(), std::greater<>{});
  return std::max(*kth, std::numeric_limits<float>::lowest());
}

}  // namespace

void top_k(std::span<const float> logits, std::size_t k, std::vector<TokenId>& out, Scratch& scratch) {
  out.clear();
  if (k == 0) return;
  collect_at_least(logits, lower_bound_of_kth(logits, k, scratch.maxima), out);
  if (out.size() <= k) return;
  const auto before = [&](TokenId a, TokenId b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x > y || (x == y && a < b);
  };
  const auto end = out.begin() + static_cast<std::ptrdiff_t>(k);
  std::nth_element(out.begin(), end - 1, out.end(), before);
  out.erase(end, out.end());
  std::sort(out.begin(), out.end());
}

}  // namespace pagedcore::sampling
