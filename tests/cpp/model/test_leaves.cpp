#include <doctest/doctest.h>

#include "model/leaves.hpp"

using namespace pagedcore;
using Ends = std::vector<std::int64_t>;

TEST_CASE("leaves of the down projection: 16 with borders at multiples of 32, fewer where k is small") {
  CHECK(down_leaves(1) == Ends{1});
  CHECK(down_leaves(32) == Ends{32});
  CHECK(down_leaves(33) == Ends{32, 33});
  CHECK(down_leaves(100) == Ends{32, 64, 96, 100});
  CHECK(down_leaves(512).size() == 16);
  // 18 units of 32 in 16 leaves: floor((i + 1) 18 / 16) = 1 .. 7, 9 .. 15, 16, 18
  CHECK(down_leaves(576) == Ends{32, 64, 96, 128, 160, 192, 224, 288, 320, 352, 384, 416, 448, 480, 512, 576});
  const Ends even = down_leaves(1536);
  for (std::size_t i = 0; i < 16; ++i) CHECK(even[i] == 96 * (static_cast<std::int64_t>(i) + 1));
  // 344 units: 21 or 22 a leaf
  const Ends ends = down_leaves(11008);
  CHECK(ends[0] == 21 * 32);
  CHECK(ends[1] == 43 * 32);
  CHECK(ends[15] == 11008);
}

TEST_CASE("leaves of the attention output: heads, larger ones than 128 in several") {
  CHECK(head_leaves(3, 64) == Ends{64, 128, 192});
  CHECK(head_leaves(2, 100) == Ends{100, 200});
  CHECK(head_leaves(2, 128) == Ends{128, 256});
  CHECK(head_leaves(2, 256) == Ends{128, 256, 384, 512});
  CHECK(head_leaves(2, 160) == Ends{64, 160, 224, 320});
  CHECK(head_leaves(1, 300) == Ends{96, 192, 300});
}

TEST_CASE("every k and head size: ascending, to the end, no empty leaf, borders at multiples of 32 of a head") {
  for (std::int64_t k = 1; k < 3000; ++k) {
    const Ends ends = down_leaves(k);
    REQUIRE(ends.size() == static_cast<std::size_t>(k > 480 ? 16 : (k + 31) / 32));
    REQUIRE(ends.back() == k);
    for (std::size_t i = 0; i + 1 < ends.size(); ++i) {
      REQUIRE(ends[i] % 32 == 0);
      REQUIRE(ends[i] < ends[i + 1]);
    }
  }
  for (std::int64_t d = 1; d < 1200; ++d) {
    const Ends ends = head_leaves(1, d);
    std::int64_t last = 0;
    for (const std::int64_t end : ends) {
      REQUIRE(end > last);
      REQUIRE(end - last <= 128);
      last = end;
    }
    REQUIRE(last == d);
    REQUIRE(ends.size() == static_cast<std::size_t>((d + 127) / 128));
    REQUIRE(num_head_leaves(7, d) == 7 * static_cast<std::int64_t>(ends.size()));
  }
}
