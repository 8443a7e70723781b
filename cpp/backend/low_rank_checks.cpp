// Checks of what adapters add to products.
#include "backend/checks.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

void check_low_rank(const LowRankForm& form) {
  if (form.n < 1 || form.k < 1 || form.parts.empty())
    throw InvalidArgument(
        str("adapter: ", form.parts.size(), " matrices for a weight of [", form.n, ", ", form.k, "]"));
  std::int64_t end = 0;
  for (const LowRankPart& part : form.parts) {
    if (part.rank < 1) throw InvalidArgument(str("adapter: a rank of ", part.rank, "; it is at least 1"));
    if (part.first_column < end || part.columns < 1 || part.first_column + part.columns > form.columns())
      throw InvalidArgument(str("adapter: columns [", part.first_column, ", ", part.first_column + part.columns,
                                ") of ", form.columns(), ", those before ", end, " taken"));
    if (part.down.rows() != part.rank || part.down.cols() != form.k)
      throw InvalidArgument(str("adapter: the matrix down is [", part.down.rows(), ", ", part.down.cols(),
                                "]; it must be [", part.rank, ", ", form.k, "]"));
    if (part.up.rows() != part.columns || part.up.cols() != part.rank)
      throw InvalidArgument(str("adapter: the matrix up is [", part.up.rows(), ", ", part.up.cols(), "]; it must be [",
                                part.columns, ", ", part.rank, "]"));
    end = part.first_column + part.columns;
  }
}

void check_low_rank_rows(const Tensor& sums, const Tensor& in, const LowRankRows& of) {
  if (of.ends.size() != of.weights.size())
    throw InvalidArgument(str("low_rank: ", of.ends.size(), " ranges of rows for ", of.weights.size(), " adapters"));
  std::int32_t first = 0;
  for (std::size_t g = 0; g < of.ends.size(); first = of.ends[g++]) {
    if (of.ends[g] < first || of.ends[g] > static_cast<std::int64_t>(of.rows.size()))
      throw InvalidArgument(str("low_rank: an adapter's rows end at ", of.ends[g], " of ", of.rows.size()));
    std::int32_t last = -1;
    for (std::int32_t i = first; i < of.ends[g]; ++i) {
      const std::int32_t row = of.rows[static_cast<std::size_t>(i)];
      if (row <= last || row >= in.rows)
        throw InvalidArgument(
            str("low_rank: row ", row, " behind row ", last, " of ", in.rows, "; an adapter's rows ascend"));
      last = row;
    }
    if (of.weights[g] == nullptr) continue;
    if (of.weights[g]->k() != in.cols || of.weights[g]->ranks() > sums.cols)
      throw InvalidArgument(str("low_rank: from ", shape_text(in), " to ", shape_text(sums), ", with an adapter of ",
                                of.weights[g]->ranks(), " ranks for ", of.weights[g]->k(), " columns"));
  }
  check_f32("low_rank: the sums", sums, static_cast<std::int64_t>(of.rows.size()), sums.cols);
}

}  // namespace pagedcore
