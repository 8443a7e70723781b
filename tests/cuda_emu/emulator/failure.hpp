// A program on the emulator that does what CUDA leaves undefined ends here: one message with kernel, block, thread,
// file and line, then abort().
#pragma once

#include <source_location>
#include <string>

namespace cuda_emu {

using Where = std::source_location;

[[noreturn]] void fail(const std::string& what, const Where& where);
std::string text(const Where& where);  // "file:line"

}  // namespace cuda_emu
