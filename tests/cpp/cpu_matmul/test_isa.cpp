#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "cpu/isa.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;
using cpu::Isa;

TEST_CASE("the list of instruction sets agrees with supported() and ends with the best") {
  const auto names = cpu_isas();
  REQUIRE(!names.empty());
  CHECK(names.front() == "portable");
  CHECK(names.back() == cpu::name(cpu::best()));
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx, Isa::neon}) {
    const bool listed = std::find(names.begin(), names.end(), cpu::name(isa)) != names.end();
    CHECK(listed == cpu::supported(isa));
  }
}

TEST_CASE("a better set implies the lesser ones of its architecture") {
  constexpr Isa kChain[]{Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx};
  for (std::size_t i = 1; i < std::size(kChain); ++i)
    if (cpu::supported(kChain[i])) CHECK(cpu::supported(kChain[i - 1]));
}

TEST_CASE("parsing") {
  CHECK(cpu::parse_isa("auto") == cpu::best());
  for (const std::string& name : cpu_isas()) CHECK(cpu::name(cpu::parse_isa(name)) == name);
  for (const char* bad : {"", "AVX2", "avx1024", "avx2 "}) {
    CHECK_THROWS_AS(cpu::parse_isa(bad), InvalidArgument);
    try {
      cpu::parse_isa(bad);
    } catch (const InvalidArgument& e) {
      CHECK(std::string(e.what()).find("portable") != std::string::npos);
    }
  }
  // No CPU has both of these.
  const char* absent = cpu::supported(Isa::neon) ? "avx2" : "neon";
  CHECK_THROWS_AS(cpu::parse_isa(absent), Unsupported);
}
