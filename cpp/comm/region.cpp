#include "comm/region.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::comm {

Region::Region(int ranks) : memory_(memfd_create("pagedcore ranks", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
  const auto n = static_cast<std::size_t>(ranks);
  const std::size_t size = n * (sizeof(Desk) + 2 * kHalfStage + kHeap) + 4096;
  if (!memory_ || ftruncate(memory_.fd(), static_cast<off_t>(size)) != 0)
    throw Io(str("cannot make memory to share between ranks: ", std::strerror(errno)));
  // Nobody can take pages away from under the others.
  fcntl(memory_.fd(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  map(ranks);
}

Region::Region(int ranks, Socket memory) : memory_(std::move(memory)) { map(ranks); }

void Region::map(int ranks) {
  const auto n = static_cast<std::size_t>(ranks);
  stages_ = (n * sizeof(Desk) + 4095) / 4096 * 4096;
  heaps_ = stages_ + n * 2 * kHalfStage;
  size_ = heaps_ + n * kHeap;
  struct stat status {};
  if (fstat(memory_.fd(), &status) != 0 || static_cast<std::size_t>(status.st_size) < size_)
    throw Io("the memory that rank 0 shares is too small for the group; run the same version of pagedcore everywhere");
  void* const mapped = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory_.fd(), 0);
  if (mapped == MAP_FAILED) throw Io(str("cannot map the ranks' shared memory: ", std::strerror(errno)));
  base_ = static_cast<std::byte*>(mapped);
}

Region::~Region() {
  if (base_ != nullptr) munmap(base_, size_);
}

std::uint64_t Region::offset_of(std::span<const std::byte> bytes) const noexcept {
  if (bytes.empty() || bytes.data() < base_ || bytes.data() + bytes.size() > base_ + size_) return Offer::kStaged;
  return static_cast<std::uint64_t>(bytes.data() - base_);
}

void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, Clock::time_point end) noexcept {
  const auto left = std::max<std::chrono::nanoseconds>(end - Clock::now(), std::chrono::nanoseconds(0));
  const auto seconds = std::min<long long>(left.count() / 1'000'000'000, 1'000'000);
  const timespec timeout{static_cast<time_t>(seconds), static_cast<long>(left.count() % 1'000'000'000)};
  syscall(SYS_futex, &word, FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

void futex_wake(std::atomic<std::uint32_t>& word) noexcept {
  syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

}  // namespace pagedcore::comm
