#include "emulator/traffic.hpp"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "emulator/block.hpp"
#include "runtime/runtime.hpp"

namespace cuda_emu {
namespace {

constexpr std::uintptr_t kSector = 32;

/// All executions of one instruction by one warp of the running block: lane by lane, the nth of each lane go together.
struct Instruction {
  std::uint32_t executions[32] = {};
  bool write = false;
  std::vector<std::vector<std::uintptr_t>> sectors;  // of each execution, sorted, each once
};
struct Place {
  unsigned warp;
  const void* code;
  bool operator==(const Place&) const = default;
};
struct PlaceHash {
  std::size_t operator()(const Place& p) const { return std::hash<const void*>()(p.code) * 31 + p.warp; }
};

bool counting = false;
Traffic total;
std::unordered_set<std::uintptr_t> read_sectors, written_sectors;
std::unordered_map<Place, Instruction, PlaceHash> block_instructions;

}  // namespace

void count_traffic() {
  counting = true;
  total = {};
  read_sectors.clear();
  written_sectors.clear();
  block_instructions.clear();
}

Traffic counted_traffic() {
  counting = false;
  total.distinct_read_bytes = read_sectors.size() * kSector;
  total.distinct_written_bytes = written_sectors.size() * kSector;
  return total;
}

void note_access(const void* address, unsigned bytes, bool write, const void* place) {
  if (!counting || current_thread() == nullptr || !is_device_memory(address, bytes)) return;
  const unsigned thread = thread_number(), lane = thread % 32;
  Instruction& i = block_instructions[{thread / 32, place}];
  i.write = write;
  const std::uint32_t execution = i.executions[lane]++;
  if (i.sectors.size() <= execution) i.sectors.resize(execution + 1);
  auto& sectors = i.sectors[execution];
  const auto begin = reinterpret_cast<std::uintptr_t>(address) / kSector;
  const auto end = (reinterpret_cast<std::uintptr_t>(address) + bytes - 1) / kSector;
  for (std::uintptr_t sector = begin; sector <= end; ++sector) {
    const auto at = std::lower_bound(sectors.begin(), sectors.end(), sector);
    if (at == sectors.end() || *at != sector) sectors.insert(at, sector);
  }
}

void end_of_block_traffic() {
  if (!counting) return;
  for (const auto& [place, instruction] : block_instructions) {
    for (const auto& sectors : instruction.sectors) {
      (instruction.write ? total.written_bytes : total.read_bytes) += sectors.size() * kSector;
      (instruction.write ? written_sectors : read_sectors).insert(sectors.begin(), sectors.end());
      ++total.requests;
    }
  }
  block_instructions.clear();
}

}  // namespace cuda_emu

// What the compiler calls before an access, under -fsanitize=kernel-address.
#define CUDA_EMU_ACCESS(bytes)                                                                                \
  extern "C" void __asan_load##bytes##_noabort(unsigned long address) {                                       \
    cuda_emu::note_access(reinterpret_cast<const void*>(address), bytes, false, __builtin_return_address(0)); \
  }                                                                                                           \
  extern "C" void __asan_store##bytes##_noabort(unsigned long address) {                                      \
    cuda_emu::note_access(reinterpret_cast<const void*>(address), bytes, true, __builtin_return_address(0));  \
  }
#ifndef __SANITIZE_ADDRESS__  // whose run-time has these names for itself
CUDA_EMU_ACCESS(1)
CUDA_EMU_ACCESS(2)
CUDA_EMU_ACCESS(4)
CUDA_EMU_ACCESS(8)
CUDA_EMU_ACCESS(16)
extern "C" void __asan_loadN_noabort(unsigned long address, unsigned long bytes) {
  cuda_emu::note_access(reinterpret_cast<const void*>(address), static_cast<unsigned>(bytes), false,
                        __builtin_return_address(0));
}
extern "C" void __asan_storeN_noabort(unsigned long address, unsigned long bytes) {
  cuda_emu::note_access(reinterpret_cast<const void*>(address), static_cast<unsigned>(bytes), true,
                        __builtin_return_address(0));
}
extern "C" void __asan_handle_no_return() {}
extern "C" void __asan_before_dynamic_init(unsigned long) {}
extern "C" void __asan_after_dynamic_init() {}
#endif
