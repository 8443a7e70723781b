// Seeded mutations of valid inputs, the same on every run. `fuzz_mutations [rounds [seed]]`
// rule: io.any-bytes-are-survived
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "harness.hpp"
#include "seeds.hpp"

namespace pagedcore::fuzz {
namespace {

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  Bytes operator()(const Bytes& original, const Bytes& other) {
    Bytes input = original;
    for (std::size_t n = 1 + below(3); n > 0; --n) mutate(input, other);
    return input;
  }

 private:
  // Not a distribution of <random>: those differ between standard libraries.
  std::size_t below(std::size_t limit) { return limit == 0 ? 0 : static_cast<std::size_t>(random_() % limit); }

  std::byte any_byte() { return static_cast<std::byte>(below(256)); }

  void mutate(Bytes& input, const Bytes& other) {
    // Most of what can go wrong is in the first bytes: half of the positions are among them.
    const std::size_t reach = below(2) == 0 ? std::min<std::size_t>(input.size(), 512) : input.size();
    const std::size_t at = below(reach);
    const auto here = input.begin() + static_cast<std::ptrdiff_t>(at);
    switch (below(7)) {
      case 0:  // a bit
        if (!input.empty()) input[at] ^= static_cast<std::byte>(1u << below(8));
        return;
      case 1:  // a byte, often one that means something to a parser
        if (!input.empty())
          input[at] = below(2) == 0 ? any_byte() : static_cast<std::byte>("\"{}[],:0\\-9\xff"[below(12)]);
        return;
      case 2:
        input.resize(at);
        return;
      case 3:  // the length field, near the truth or far from it
        if (input.size() >= 8) edit_length(input);
        return;
      case 4:  // a digit, so that the text stays well-formed
        edit_number(input, at);
        return;
      case 5:  // a piece out
        input.erase(here, here + static_cast<std::ptrdiff_t>(below(std::min<std::size_t>(input.size() - at + 1, 32))));
        return;
      default: {  // a piece of another valid input in
        const std::size_t from = below(other.size());
        const std::size_t length = below(std::min<std::size_t>(other.size() - from + 1, 64));
        const auto begin = other.begin() + static_cast<std::ptrdiff_t>(from);
        input.insert(here, begin, begin + static_cast<std::ptrdiff_t>(length));
      }
    }
  }

  void edit_length(Bytes& input) {
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < 8; ++i) length |= std::to_integer<std::uint64_t>(input[i]) << (8 * i);
    constexpr std::array<std::uint64_t, 6> far{0, 1, 1u << 31, 100'000'000, ~std::uint64_t{0}, ~std::uint64_t{0} - 7};
    length = below(2) == 0 ? length + below(17) - 8 : far[below(far.size())];
    for (std::size_t i = 0; i < 8; ++i) input[i] = static_cast<std::byte>((length >> (8 * i)) & 0xff);
  }

  void edit_number(Bytes& input, std::size_t from) {
    const auto is_digit = [](std::byte b) { return b >= std::byte{'0'} && b <= std::byte{'9'}; };
    const auto start = std::find_if(input.begin() + static_cast<std::ptrdiff_t>(from), input.end(), is_digit);
    const auto stop = std::find_if_not(start, input.end(), is_digit);
    constexpr std::array<const char*, 8> numbers{
        "0", "1", "4294967295", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551615",
        "-1"};
    std::string number = numbers[below(numbers.size())];
    if (below(2) == 0) number = std::to_string(below(100));
    const auto at = input.erase(start, stop);
    std::transform(number.begin(), number.end(), std::inserter(input, at),
                   [](char c) { return static_cast<std::byte>(c); });
  }

  std::mt19937_64 random_;
};

int run(const char* name, bool (*harness)(std::span<const std::byte>), const std::vector<Bytes>& seeds, int rounds,
        std::uint64_t seed) {
  Mutator mutate(seed);
  int accepted = 0;
  for (const Bytes& input : seeds) {
    if (!harness(input)) {
      std::fprintf(stderr, "%s: a valid input is refused\n", name);
      return 1;
    }
  }
  for (int round = 0; round < rounds; ++round) {
    const Bytes& original = seeds[static_cast<std::size_t>(round) % seeds.size()];
    const Bytes& other = seeds[static_cast<std::size_t>(round / 7) % seeds.size()];
    // An exact allocation of its own, so that a sanitizer sees one byte too far.
    const Bytes input = mutate(original, other);
    const std::vector<std::byte> exact(input.begin(), input.end());
    accepted += harness(exact);
  }
  std::printf("%s: %d mutations, %d still accepted\n", name, rounds, accepted);
  if (accepted == rounds) {
    std::fprintf(stderr, "%s: no mutation was refused: the mutations or the harness do nothing\n", name);
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace pagedcore::fuzz

int main(int argc, char** argv) {
  namespace fuzz = pagedcore::fuzz;
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 100000;
  const std::uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  return fuzz::run("safetensors", fuzz::safetensors, fuzz::safetensors_seeds(), rounds, seed) |
         fuzz::run("json", fuzz::json, fuzz::json_seeds(), rounds, seed) |
         fuzz::run("description", fuzz::description, fuzz::description_seeds(), rounds, seed);
}
