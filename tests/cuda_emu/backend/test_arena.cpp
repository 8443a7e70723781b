// The arena's arithmetic, against a list of what is taken.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "backend/arena.hpp"

using pagedcore::cuda::Arena;

TEST_CASE("pieces are aligned, inside, apart, and everything comes back") {
  struct Piece {
    std::size_t offset, bytes;
  };
  std::mt19937 random(1);
  Arena arena(100000);
  CHECK(arena.capacity() == 99840);
  std::vector<Piece> pieces;
  int refused = 0;
  for (int step = 0; step < 20000; ++step) {
    if (pieces.empty() || random() % 5 < 3) {
      const std::size_t bytes = 1 + random() % 9000;
      const auto offset = arena.take(bytes);
      if (!offset) {
        CHECK(arena.largest_gap() < bytes);
        ++refused;
        continue;
      }
      REQUIRE(*offset % Arena::kAlignment == 0);
      REQUIRE(*offset + bytes <= arena.capacity());
      for (const Piece& p : pieces) REQUIRE((*offset >= p.offset + p.bytes || p.offset >= *offset + bytes));
      pieces.push_back({*offset, bytes});
    } else {
      const std::size_t i = random() % pieces.size();
      arena.give_back(pieces[i].offset);
      pieces.erase(pieces.begin() + static_cast<std::ptrdiff_t>(i));
    }
    std::size_t used = 0;
    for (const Piece& p : pieces) used += (p.bytes + 255) / 256 * 256;
    REQUIRE(arena.used() == used);
  }
  CHECK(refused > 100);
  for (const Piece& p : pieces) arena.give_back(p.offset);
  CHECK(arena.used() == 0);
  CHECK(arena.largest_gap() == arena.capacity());
  CHECK_FALSE(arena.take(arena.capacity() + 1));
  CHECK(arena.take(arena.capacity()) == 0);
}

TEST_CASE("a piece is taken from the smallest gap that has room for it") {
  Arena arena(16 * Arena::kAlignment);
  const auto pieces = [](std::size_t count) { return count * Arena::kAlignment; };
  const auto wide = arena.take(pieces(4)), first = arena.take(pieces(1)), narrow = arena.take(pieces(2)),
             second = arena.take(pieces(1));
  REQUIRE((wide && first && narrow && second));
  arena.give_back(*wide);
  arena.give_back(*narrow);
  CHECK(arena.take(pieces(2)) == narrow);
  CHECK(arena.take(pieces(4)) == wide);
  CHECK(arena.largest_gap() == pieces(8));
}
