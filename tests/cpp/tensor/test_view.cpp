#include <doctest/doctest.h>

#include <array>

#include "pagedcore/tensor.hpp"

using namespace pagedcore;

TEST_CASE("slices move the address and keep the stride") {
  std::array<std::uint16_t, 40> memory{};
  const Tensor whole{memory.data(), DType::bf16, 4, 8, 10};

  const Tensor head = whole.head(2);
  CHECK(head.data == memory.data());
  CHECK(head.rows == 2);

  const Tensor rows = whole.slice_rows(1, 2);
  CHECK(rows.data == memory.data() + 10);
  CHECK(rows.rows == 2);
  CHECK(rows.cols == 8);
  CHECK(rows.stride == 10);

  const Tensor piece = rows.slice_cols(3, 4);
  CHECK(piece.data == memory.data() + 13);
  CHECK(piece.rows == 2);
  CHECK(piece.cols == 4);
  CHECK(piece.stride == 10);
}
