#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#include "emulator/block.hpp"
#include "emulator/device.hpp"
#include "emulator/sanitizer.hpp"

namespace cuda_emu {
namespace {

constexpr std::size_t kArenaBytes = 512 << 10;
constexpr std::size_t kMaxStaticBytes = 48 << 10;
constexpr std::size_t kMaxBlockBytes = 99 << 10;  // sm_86, sm_89, sm_120; others grant more
constexpr std::size_t kGap = 128;                 // between variables: AddressSanitizer reports a touch
constexpr int kMaxVariables = 64;

struct Variable {
  const void* key;
  void* address;
};
struct Arena {
  char* begin = nullptr;
  std::size_t used = 0;
  std::size_t static_bytes = 0, dynamic_bytes = 0;
  void* dynamic = nullptr;
  Variable variables[kMaxVariables];
  int num_variables = 0;
};
Arena arenas[kBanks];
Arena* arena = arenas;

/// Exactly aligned: the address is no multiple of twice the alignment.
void* place(std::size_t bytes, std::size_t alignment) {
  std::size_t at = arena->used + kGap;
  at = (at + 2 * alignment - 1) / (2 * alignment) * (2 * alignment) + alignment;
  if (at + bytes + kGap > kArenaBytes) fail("the emulator's shared memory is too small", Where::current());
  arena->used = at + bytes;
  char* p = arena->begin + at;
  allow(p, bytes);
  poison(p, bytes);
  return p;
}

}  // namespace

void shared_memory_begin(unsigned bank, std::size_t dynamic_bytes) {
  arena = &arenas[bank];
  if (arena->begin == nullptr) {
    void* memory = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      std::perror("cuda_emu: no memory for shared memory");
      std::abort();
    }
    arena->begin = static_cast<char*>(memory);
    forbid(arena->begin, kArenaBytes);
  }
  forbid(arena->begin, arena->used);
  arena->used = 0;
  arena->num_variables = 0;
  arena->static_bytes = 0;
  arena->dynamic_bytes = dynamic_bytes;
  arena->dynamic = dynamic_bytes > 0 ? place(dynamic_bytes, 16) : nullptr;
}

void* dynamic_shared() {
  if (arena->dynamic == nullptr) fail("the launch gave no dynamic shared memory", current_launch()->where);
  return arena->dynamic;
}

void* static_shared(const void* key, std::size_t bytes, std::size_t alignment) {
  for (int i = 0; i < arena->num_variables; ++i) {
    if (arena->variables[i].key == key) return arena->variables[i].address;
  }
  arena->static_bytes += bytes;
  const Where& where = current_launch()->where;
  if (arena->num_variables == kMaxVariables) fail("too many shared variables for the emulator", where);
  if (arena->static_bytes > kMaxStaticBytes) fail("more than 48 KiB of static shared memory", where);
  if (arena->static_bytes + arena->dynamic_bytes > kMaxBlockBytes) {
    fail("more than 99 KiB of shared memory in one block, which not every GPU grants", where);
  }
  void* p = place(bytes, alignment < 16 ? 16 : alignment);
  arena->variables[arena->num_variables++] = {key, p};
  return p;
}

void poison(void* p, std::size_t bytes) {
  auto* c = static_cast<volatile unsigned char*>(p);
  const unsigned char byte = poison_byte();
  for (std::size_t i = 0; i < bytes; ++i) c[i] = byte;
}

bool is_shared(const void* p, std::size_t bytes) {
  const auto* c = static_cast<const char*>(p);
  return c >= arena->begin && c + bytes <= arena->begin + kArenaBytes;
}

}  // namespace cuda_emu
