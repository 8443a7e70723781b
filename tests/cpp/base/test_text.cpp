#include <doctest/doctest.h>

#include <locale>
#include <string>

#include "base/text.hpp"

namespace {

/// Digits in groups of three, and a comma before decimals: what many countries' locales do.
struct Grouping : std::numpunct<char> {
  char do_thousands_sep() const override { return '.'; }
  char do_decimal_point() const override { return ','; }
  std::string do_grouping() const override { return "\3"; }
};

struct Locale {
  std::locale before = std::locale::global(std::locale(std::locale::classic(), new Grouping));
  ~Locale() { std::locale::global(before); }
};

}  // namespace

TEST_CASE("messages do not follow the program's locale") {
  const Locale grouping;
  CHECK(pagedcore::str("block ", 1234567, " of ", 0.5) == "block 1234567 of 0.5");
}
