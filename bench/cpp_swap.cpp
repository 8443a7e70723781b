// How fast blocks move to and from the swap space, beside what the machine can do with the same bytes: memcpy by as
// many threads, and plain pwrite/pread of one block at a time. Usage: bench_swap [directory of the file] [threads]
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/swap_store.hpp"

namespace {

using namespace pagedcore;

constexpr std::uint32_t kBlocks = 512;
constexpr int kRounds = 15;

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const std::string directory = argc > 1 ? argv[1] : ".";
  const int threads = argc > 2 ? std::atoi(argv[2]) : static_cast<int>(std::thread::hardware_concurrency());
  auto backend = make_cpu_backend({.threads = threads});
  // SmolLM2-135M in bf16: 30 layers, 3 KV heads of 64; 16 tokens take 368,640 bytes.
  const auto kv = backend->allocate_kv({30, 3, 64, 16, DType::bf16}, kBlocks);
  const std::size_t bytes = kv->block_bytes();
  SwapStore store({bytes, kBlocks, kBlocks}, make_swap_file(directory + "/pagedcore-bench-swap"));

  // Blocks and slots in an order of their own, as after a while of service.
  std::vector<std::uint32_t> order(kBlocks);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  std::vector<BlockSwap> host(kBlocks), file(kBlocks);
  for (std::uint32_t i = 0; i < kBlocks; ++i) {
    host[i] = {BlockId{order[i]}, SwapSlot{i}};
    file[i] = {BlockId{order[i]}, SwapSlot{kBlocks + i}};
  }
  std::vector<std::uint8_t> failed(kBlocks);

  std::vector<std::byte> from(bytes * kBlocks, std::byte{1}), to(bytes * kBlocks, std::byte{2});
  const auto copy_all = [&] {
    backend->host_parallel(kBlocks, [&](std::int64_t i) {
      std::memcpy(to.data() + static_cast<std::size_t>(i) * bytes,
                  from.data() + order[static_cast<std::size_t>(i)] * bytes, bytes);
    });
  };
  const std::string path = directory + "/pagedcore-bench-plain";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (fd < 0) return std::perror(path.c_str()), 1;
  ::unlink(path.c_str());
  bool whole = true;
  const auto write_all = [&] {
    for (std::uint32_t i = 0; i < kBlocks; ++i) {
      const auto done = ::pwrite(fd, from.data() + order[i] * bytes, bytes, static_cast<off_t>(i * bytes));
      whole = whole && done == static_cast<ssize_t>(bytes);
    }
  };
  const auto read_all = [&] {
    for (std::uint32_t i = 0; i < kBlocks; ++i) {
      const auto done = ::pread(fd, to.data() + order[i] * bytes, bytes, static_cast<off_t>(i * bytes));
      whole = whole && done == static_cast<ssize_t>(bytes);
    }
  };

  struct Row {
    const char* name;
    std::function<void()> work;
    std::vector<double> seconds{};
  };
  std::vector<Row> rows{{"memcpy", copy_all},
                        {"to memory", [&] { store.store(*backend, *kv, host, failed); }},
                        {"from memory", [&] { store.load(*backend, *kv, host, failed); }},
                        {"pwrite", write_all},
                        {"to file", [&] { store.store(*backend, *kv, file, failed); }},
                        {"pread", read_all},
                        {"from file", [&] { store.load(*backend, *kv, file, failed); }}};
  for (Row& row : rows) row.work();  // pages are there from now on
  for (int round = 0; round < kRounds; ++round) {
    for (Row& row : rows) row.seconds.push_back(seconds_of(row.work));
  }
  if (!whole || store.counters().errors > 0)
    return std::fprintf(stderr, "I/O failed: %s\n", store.last_error().c_str()), 1;

  const double size = static_cast<double>(bytes) * kBlocks;
  const auto rate = [&](std::size_t row) { return size / median(rows[row].seconds); };
  std::printf("%u blocks of %zu bytes, %d threads, %s\n", kBlocks, bytes, threads, backend->describe().c_str());
  for (std::size_t i = 0; i < rows.size(); ++i) std::printf("%-12s %6.2f GB/s\n", rows[i].name, rate(i) / 1e9);
  std::printf(
      "to memory / memcpy   %.2f\nfrom memory / memcpy %.2f\nto file / pwrite     %.2f\nfrom file / pread    %.2f\n",
      rate(1) / rate(0), rate(2) / rate(0), rate(4) / rate(3), rate(6) / rate(5));
  return 0;
}
