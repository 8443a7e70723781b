#include "cpu/mixture/row_lists.hpp"

#include "base/text.hpp"
#include "cpu/elementwise/rows.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {

void RowLists::fill(const Routing& routing, std::int64_t experts) {
  const Tensor& chosen = routing.experts;
  starts.assign(static_cast<std::size_t>(experts) + 1, 0);
  for (std::int64_t row = 0; row < chosen.rows; ++row) {
    std::int32_t last = -1;
    for (std::int64_t slot = 0; slot < chosen.cols; ++slot) {
      const std::int32_t expert = row_of<std::int32_t>(chosen, row)[slot];
      if (expert <= last || expert >= experts)
        throw InvalidArgument(str("mixture: slot ", slot, " of row ", row, " names expert ", expert, " of ", experts,
                                  "; the slots of a row ascend"));
      last = expert;
      ++starts[static_cast<std::size_t>(expert) + 1];
    }
  }
  used.clear();
  for (std::size_t expert = 0; expert < static_cast<std::size_t>(experts); ++expert) {
    if (starts[expert + 1] > 0) used.push_back(static_cast<std::int32_t>(expert));
    starts[expert + 1] += starts[expert];
  }
  const auto slots = static_cast<std::size_t>(chosen.rows * chosen.cols);
  rows.resize(slots);
  shares.resize(slots);
  std::vector<std::int64_t> next(starts.begin(), starts.end() - 1);
  for (std::int64_t row = 0; row < chosen.rows; ++row)
    for (std::int64_t slot = 0; slot < chosen.cols; ++slot) {
      const std::int32_t expert = row_of<std::int32_t>(chosen, row)[slot];
      const auto at = static_cast<std::size_t>(next[static_cast<std::size_t>(expert)]++);
      rows[at] = static_cast<std::int32_t>(row);
      shares[at] = row_of<float>(routing.shares, row)[slot];
    }
}

}  // namespace pagedcore::cpu
