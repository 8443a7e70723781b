#include "cpu/large_memory.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <utility>

namespace pagedcore::cpu {
namespace {

constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

void FreeLarge::operator()(std::byte* p) const noexcept { std::free(p); }

LargeMemory large_memory(std::size_t bytes) noexcept {
  const bool large = bytes >= kHugePage;
  void* memory = nullptr;
  if (posix_memalign(&memory, large ? kHugePage : kCacheLine, bytes) != 0) return nullptr;
#if defined(MADV_HUGEPAGE)
  if (large) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);  // a hint: it may fail
#endif
  return LargeMemory(static_cast<std::byte*>(memory));
}

bool Scratch::grow(LargeMemory& memory, std::size_t& size, std::size_t bytes) noexcept {
  if (bytes <= size) return true;
  LargeMemory larger = large_memory((bytes + kHugePage - 1) / kHugePage * kHugePage);
  if (larger == nullptr) return false;
  memory = std::move(larger);
  size = bytes;
  return true;
}

bool Scratch::reserve(int workers, std::size_t bytes) noexcept {
  if (!grow(memory_, size_, static_cast<std::size_t>(workers) * bytes)) return false;
  worker_bytes_ = bytes;
  return true;
}

}  // namespace pagedcore::cpu
