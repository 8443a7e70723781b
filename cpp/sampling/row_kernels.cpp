#include "sampling/row_kernels.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

// The passes are written once, in row_kernels.inl, with the vector extensions that GCC and clang share. On x86-64 that
// file is compiled for the baseline, for AVX2 and for AVX-512, and the best that this CPU has is called. (The attribute
// target_clones would do that by ifuncs, which run before a sanitizer is ready and which some C libraries lack.)
#pragma GCC diagnostic ignored "-Wpsabi"  // every function that takes or returns a vector is inlined
#define PAGEDCORE_INLINE inline __attribute__((always_inline))
#define PAGEDCORE_EACH_REGISTER _Pragma("GCC unroll 4") for (int r = 0; r < kRegisters; ++r)

namespace pagedcore::sampling {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr std::size_t kLanes = 16;
/// Bit i of a lane i, as integers of its width.
constexpr std::int32_t kLaneBits[kLanes] = {1 << 0, 1 << 1, 1 << 2,  1 << 3,  1 << 4,  1 << 5,  1 << 6,  1 << 7,
                                            1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};
constexpr std::size_t kRun = 4 * kLanes;  // searches skip this many values at a time
constexpr std::size_t kChunk =
    kGroup * kLanes;  // yields sixteen groups: the lanes, each a strided set of kGroup values

struct Kernels {
  float (*row_max)(const float* row, std::size_t size);
  std::size_t (*find_first)(const float* row, std::size_t size, float value);
  std::size_t (*count_greater)(const float* row, std::size_t size, float value);
  std::size_t (*count_equal)(const float* row, std::size_t size, float value);
  void (*exp_row)(const float* row, std::size_t size, float max, float scale, float* out);
  void (*exp_block_sums)(const float* row, std::size_t size, float max, float scale, double* sums);
  void (*group_max)(const float* row, std::size_t size, float* out);
  std::size_t (*skip_below)(const float* row, std::size_t first, std::size_t size, float floor);
  void (*keep_allowed)(const float* row, std::size_t size, const std::uint32_t* mask, float* out);
};

namespace baseline {
#define PAGEDCORE_REGISTER_BYTES 16
#include "sampling/row_kernels.inl"
#undef PAGEDCORE_REGISTER_BYTES
}  // namespace baseline

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
namespace avx2 {
#define PAGEDCORE_REGISTER_BYTES 32
#include "sampling/row_kernels.inl"
#undef PAGEDCORE_REGISTER_BYTES
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f")
#endif
namespace avx512 {
#define PAGEDCORE_REGISTER_BYTES 64
#include "sampling/row_kernels.inl"
#undef PAGEDCORE_REGISTER_BYTES
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

constexpr const Kernels* kLevels[] = {&baseline::kernels, &avx2::kernels, &avx512::kernels};

int level_of_cpu() noexcept {
  static const int level = [] {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") ? 2 : __builtin_cpu_supports("avx2") ? 1 : 0;
  }();
  return level;
}

#else

constexpr const Kernels* kLevels[] = {&baseline::kernels};

int level_of_cpu() noexcept { return 0; }

#endif

std::atomic<int> level_limit{2};

const Kernels& best() noexcept {
  return *kLevels[std::min(level_limit.load(std::memory_order_relaxed), level_of_cpu())];
}

}  // namespace

float row_max(std::span<const float> row) noexcept { return best().row_max(row.data(), row.size()); }

std::size_t find_first(std::span<const float> row, float value) noexcept {
  return best().find_first(row.data(), row.size(), value);
}

std::size_t count_greater(std::span<const float> row, float value) noexcept {
  return best().count_greater(row.data(), row.size(), value);
}

std::size_t count_equal(std::span<const float> row, float value) noexcept {
  return best().count_equal(row.data(), row.size(), value);
}

void exp_row(std::span<const float> row, float max, float scale, std::span<float> out) noexcept {
  best().exp_row(row.data(), row.size(), max, scale, out.data());
}

void exp_block_sums(std::span<const float> row, float max, float scale, std::span<double> sums) noexcept {
  best().exp_block_sums(row.data(), row.size(), max, scale, sums.data());
}

double exp_sum(std::span<const float> row, float max, float scale) noexcept {
  constexpr std::size_t kBlocks = 64;  // at a time
  double total = 0.0, sums[kBlocks];
  for (std::size_t first = 0; first < row.size(); first += kBlocks * kSumBlock) {
    const auto part = row.subspan(first, std::min(kBlocks * kSumBlock, row.size() - first));
    exp_block_sums(part, max, scale, sums);
    for (std::size_t b = 0; b < sum_blocks(part.size()); ++b) total += sums[b];
  }
  return total;
}

std::size_t group_count(std::size_t size) noexcept { return (size + kChunk - 1) / kChunk * kLanes; }

void group_max(std::span<const float> row, std::span<float> out) noexcept {
  best().group_max(row.data(), row.size(), out.data());
}

void collect_at_least(std::span<const float> row, float floor, std::vector<TokenId>& out) {
  for (std::size_t i = best().skip_below(row.data(), 0, row.size(), floor); i < row.size();) {
    for (const std::size_t end = std::min(i + kRun, row.size()); i < end; ++i) {
      if (row[i] >= floor) out.push_back(static_cast<TokenId>(i));
    }
    i = best().skip_below(row.data(), i, row.size(), floor);
  }
}

void keep_allowed(std::span<const float> row, std::span<const std::uint32_t> mask, std::span<float> out) noexcept {
  best().keep_allowed(row.data(), row.size(), mask.data(), out.data());
}

int limit_row_isa(int level) noexcept {
  level_limit = std::max(level, 0);
  return std::min(level_limit.load(), level_of_cpu());
}

}  // namespace pagedcore::sampling
