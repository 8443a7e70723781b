#include "emulator/async_copy.hpp"

#include <cstring>

#include "emulator/block.hpp"
#include "emulator/sanitizer.hpp"
#include "emulator/traffic.hpp"

namespace cuda_emu {
namespace {

void land(const Copy& copy) {
  announce_write(copy.to, copy.bytes);
  if (copy.from == nullptr) {
    std::memset(copy.to, 0, copy.bytes);
  } else {
    announce_read(copy.from, copy.bytes);
    std::memcpy(copy.to, copy.from, copy.bytes);
  }
}

bool aligned(const void* p, unsigned bytes) { return reinterpret_cast<std::uintptr_t>(p) % bytes == 0; }

}  // namespace

void copy_async(void* shared, const void* global, unsigned bytes, const Where& where) {
  if (!is_shared(shared, bytes)) fail("cp.async to an address that is not shared memory", where);
  if (global != nullptr && is_shared(global, bytes)) fail("cp.async from shared memory", where);
  if (!aligned(shared, bytes) || !aligned(global, bytes)) fail("cp.async: not aligned to the bytes copied", where);
  Thread& thread = *current_thread();
  thread.where = where;
  announce_write(shared, bytes);
  poison(shared, bytes);
  if (global != nullptr) note_access(global, bytes, false, __builtin_return_address(0));
  thread.copies.push_back({shared, global, bytes});
}

void commit_copies() {
  Thread& thread = *current_thread();
  thread.groups.push_back({thread.copies.size()});
}

void wait_for_copies(unsigned newest) {
  Thread& thread = *current_thread();
  if (thread.groups.size() <= newest) return;
  const auto groups = static_cast<std::ptrdiff_t>(thread.groups.size() - newest);
  const std::size_t end = thread.groups[groups - 1].end;
  for (std::size_t i = 0; i < end; ++i) land(thread.copies[i]);
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + static_cast<std::ptrdiff_t>(end));
  thread.groups.erase(thread.groups.begin(), thread.groups.begin() + groups);
  for (CopyGroup& later : thread.groups) later.end -= end;
}

void read_shared_row(std::uint32_t (&words)[4], const void* row, const Where& where) {
  if (!is_shared(row, 16)) fail("ldmatrix from an address that is not shared memory", where);
  if (!aligned(row, 16)) fail("ldmatrix: a row is not aligned to 16 bytes", where);
  announce_read(row, 16);
  std::memcpy(words, row, 16);
}

}  // namespace cuda_emu
