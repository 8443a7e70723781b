#include "emulator/failure.hpp"

#include <cstdio>
#include <cstdlib>

#include "emulator/block.hpp"
#include "emulator/device.hpp"

namespace cuda_emu {

std::string text(const Where& where) { return std::string(where.file_name()) + ":" + std::to_string(where.line()); }

void fail(const std::string& what, const Where& where) {
  std::fprintf(stderr, "cuda_emu: %s (%s)\n", what.c_str(), text(where).c_str());
  if (const Launch* launch = current_launch()) {
    std::fprintf(stderr, "  in block (%u,%u,%u), thread (%u,%u,%u) of %s, launched at %s\n", blockIdx.x, blockIdx.y,
                 blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, launch->name, text(launch->where).c_str());
  }
  std::abort();
}

}  // namespace cuda_emu
