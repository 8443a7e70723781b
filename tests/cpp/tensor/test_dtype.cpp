#include <doctest/doctest.h>

#include <limits>

#include "pagedcore/error.hpp"
#include "pagedcore/tensor.hpp"

using namespace pagedcore;

TEST_CASE("every element type is found by its name") {
  for (int i = 0; i <= static_cast<int>(DType::f8_g128); ++i) {
    const auto dtype = static_cast<DType>(i);
    CHECK(dtype_from_name(info(dtype).name) == dtype);
  }
  CHECK(info(DType::bf16).name == "bf16");
  CHECK(info(DType::boolean).name == "bool");
  CHECK(info(DType::q4_k).name == "q4_k");
}

// rule: tensor.unknown-type-is-named
TEST_CASE("an unknown name is refused with the list of known ones") {
  CHECK_THROWS_WITH_AS(dtype_from_name("f8_e5m2"), doctest::Contains("'f8_e5m2' is unknown; known are: f32, bf16"),
                       Unsupported);
  CHECK_THROWS_AS(dtype_from_name(""), Unsupported);
  CHECK_THROWS_AS(dtype_from_name("F32"), Unsupported);
}

// rule: tensor.whole-blocks
TEST_CASE("bytes_of counts whole blocks and refuses everything else") {
  CHECK(bytes_of(DType::f32, 0) == 0);
  CHECK(bytes_of(DType::f32, 3) == 12);
  CHECK(bytes_of(DType::boolean, 3) == 3);
  CHECK(bytes_of(DType::q4_1, 64) == 40);
  CHECK(bytes_of(DType::q6_k, 512) == 420);
  CHECK_THROWS_WITH_AS(bytes_of(DType::q4_0, 33), doctest::Contains("33 elements of q4_0"), InvalidArgument);
  CHECK_THROWS_AS(bytes_of(DType::q2_k, 32), InvalidArgument);
  CHECK_THROWS_AS(bytes_of(DType::f32, -1), InvalidArgument);
  CHECK_THROWS_AS(bytes_of(DType::f64, std::numeric_limits<std::int64_t>::max()), InvalidArgument);
}
