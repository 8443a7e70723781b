#include "emulator/options.hpp"

#include <cstdio>
#include <cstdlib>
#include <string>

namespace cuda_emu {
namespace {

Options from_environment() {
  const char* text = std::getenv("PAGEDCORE_CUDA_EMU");
  const std::string value = text == nullptr ? "ascending" : text;
  if (value == "ascending") return {Order::ascending, 1};
  if (value == "descending") return {Order::descending, 1};
  if (value == "others-first") return {Order::others_first, 1};
  if (value.starts_with("random:")) {
    char* end = nullptr;
    const std::uint64_t seed = std::strtoull(value.c_str() + 7, &end, 10);
    if (end != value.c_str() + 7 && *end == '\0') return {Order::random, seed};
  }
  std::fprintf(stderr, "PAGEDCORE_CUDA_EMU=%s: ascending, descending, others-first or random:<seed>\n", value.c_str());
  std::exit(2);
}

}  // namespace

Options& options() {
  static Options chosen = from_environment();
  return chosen;
}

unsigned char poison_byte() {
  static bool large =
      options().order == Order::descending || (options().order == Order::random && options().seed % 2 == 0);
  large = !large;
  return large ? 0x7f : 0xff;
}

}  // namespace cuda_emu
