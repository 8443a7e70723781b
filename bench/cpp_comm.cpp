// What calls between two ranks take: small ones, and the bytes of an all-reduce of 1 MB, which is an all_to_all of
// halves and an all_gather of them, beside a memcpy of 1 MB. Ranks are threads, then processes.
//   cmake --build build/release --target bench_comm && build/release/bench/bench_comm
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "comm/shared_memory.hpp"
#include "comm/tcp.hpp"
#include "comm/threads.hpp"

using namespace pagedcore::comm;

namespace {

constexpr std::size_t kBytes = 1 << 20, kHalf = kBytes / 2;
constexpr Limits kLimits{std::chrono::seconds(10), std::chrono::microseconds(5000)};

double median_us(int rounds, const std::function<void()>& body) {
  std::vector<double> times;
  for (int i = 0; i < rounds; ++i) {
    const auto start = Clock::now();
    body();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  return times[static_cast<std::size_t>(rounds / 2)];
}

struct Times {
  double small, barrier, large;
};

Times run(Communicator& comm, bool in_place) {
  const auto self = static_cast<std::size_t>(comm.rank());
  std::vector<std::byte> own_values(kBytes), own_slices(kBytes);
  std::span<std::byte> values = own_values, slices = own_slices;
  if (auto* group = dynamic_cast<SharedMemoryGroup*>(&comm); group != nullptr && in_place) {
    values = group->memory(kBytes);
    slices = group->memory(kBytes);
  }
  std::vector<std::span<const std::byte>> send{values.first(kHalf), values.last(kHalf)};
  std::vector<std::span<std::byte>> parts{slices.first(kHalf), slices.last(kHalf)};
  send[self] = parts[self];  // a rank's own part stays where it is
  std::vector<std::span<std::byte>> whole{values.first(kHalf), values.last(kHalf)};
  std::vector<std::byte> few(128);
  const std::vector<std::span<std::byte>> small{std::span(few).first(64), std::span(few).last(64)};
  Times times{};
  for (int warm = 0; warm < 2; ++warm) {
    comm.barrier();
    times.barrier = median_us(3000, [&] { comm.barrier(); });
    times.small = median_us(3000, [&] { comm.all_gather(small[self], small); });
    times.large = median_us(400, [&] {
      comm.all_to_all(send, parts);
      comm.all_gather(whole[self], whole);
    });
  }
  return times;
}

void print(const char* name, const Times& times, double memcpy_us) {
  std::printf("%-14s %10.2f %10.2f %12.1f %14.2f\n", name, times.barrier, times.small, times.large,
              times.large / memcpy_us);
  std::fflush(stdout);
}

template <class Join>
Times run_processes(const Join& join, const std::string& address, bool in_place) {
  Member member;
  member.address = address;
  member.ranks = 2;
  member.token = "the token of a benchmark";
  member.limits = kLimits;
  const pid_t child = fork();
  member.rank = child == 0 ? 1 : 0;
  const auto comm = join(member);
  const Times times = run(*comm, in_place);
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  return times;
}

/// What any transport has to do at the least: a megabyte crosses from one core's cache to another's.
double memcpy_from_other_core_us() {
  std::vector<std::byte> shared(kBytes), to(kBytes);
  std::atomic<int> turn{0};
  constexpr int kRounds = 400;
  std::thread writer([&] {
    for (int i = 0; i < kRounds; ++i) {
      while (turn.load() != 2 * i) continue;
      std::memset(shared.data(), i, kBytes);
      turn.store(2 * i + 1);
    }
  });
  std::vector<double> times;
  for (int i = 0; i < kRounds; ++i) {
    while (turn.load() != 2 * i + 1) continue;
    const auto start = Clock::now();
    std::memcpy(to.data(), shared.data(), kBytes);
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    turn.store(2 * i + 2);
  }
  writer.join();
  std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
  return times[kRounds / 2];
}

}  // namespace

int main() {
  std::vector<std::byte> from(kBytes, std::byte{1}), to(kBytes, std::byte{2});
  const auto copy = [&] { std::memcpy(to.data(), from.data(), kBytes); };
  const double memcpy_us = (median_us(400, copy), median_us(400, copy));
  std::printf("memcpy of 1 MB: %.1f us; of 1 MB that the other core wrote: %.1f us\n%-14s %10s %10s %12s %14s\n",
              memcpy_us, memcpy_from_other_core_us(), "ranks", "barrier us", "64 B us", "all-reduce us", "in memcpys");
  print("shared memory", run_processes(join_shared_memory, "unix:/tmp/pagedcore-bench-comm", false), memcpy_us);
  print(" ... in place", run_processes(join_shared_memory, "unix:/tmp/pagedcore-bench-comm", true), memcpy_us);
  print("tcp", run_processes(join_tcp, "127.0.0.1:47811", false), memcpy_us);
  auto ends = make_thread_group(2, kLimits);
  std::thread other([&] { run(*ends[1], false); });
  print("threads", run(*ends[0], false), memcpy_us);
  other.join();
}
