#include <doctest/doctest.h>

#include <set>

#include "pagedcore/sampling.hpp"
#include "sampling/philox.hpp"

using pagedcore::uniform;
using pagedcore::sampling::philox4x32_10;
using pagedcore::sampling::PhiloxCounter;

TEST_CASE("Philox4x32-10 gives the published known answers") {  // Random123, kat_vectors
  CHECK(philox4x32_10({0, 0, 0, 0}, {0, 0}) == PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32_10({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

// rule: sampling.draws-have-no-state
TEST_CASE("uniform numbers use 53 bits, lie in [0, 1) and depend on seed, sample and position") {
  // Bits 0 and 1 of the first known answer, the high 53 of 64.
  CHECK(uniform(0, 0, 0) == static_cast<double>(0xe169c58d6627e8d5ull >> 11) * 0x1.0p-53);
  std::set<double> seen;
  double sum = 0.0;
  for (std::uint64_t seed : {0ull, 1ull, 1ull << 32, ~0ull}) {
    for (std::uint32_t sample : {0u, 1u, 65535u}) {
      for (std::uint64_t position = 0; position < 1000; ++position) {
        const double u = uniform(seed, sample, position);
        CHECK_UNARY(u >= 0.0 && u < 1.0);
        seen.insert(u);
        sum += u;
      }
    }
  }
  CHECK(seen.size() == 12000);
  CHECK(sum / 12000 == doctest::Approx(0.5).epsilon(0.02));
  CHECK(uniform(7, 0, 1ull << 32) != uniform(7, 0, 0));
}
