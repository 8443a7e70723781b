// The passes of row_kernels.hpp over raw rows. Included by row_kernels.cpp once per instruction set, each time inside a
// namespace of its own; so nothing here may include a header or use a template or an inline function from elsewhere
// (the linker could keep the copy that was compiled for one instruction set for the whole program).

#include "sampling/lanes.inl"

float row_max(const float* row, std::size_t size) {
  auto even = Lanes::all(-kInfinity), odd = even;
  Counts nan;
  std::size_t i = 0;
  for (; i + 2 * kLanes <= size; i += 2 * kLanes) {
    const auto a = Lanes::load(row + i), b = Lanes::load(row + i + kLanes);
    even.max(a);
    odd.max(b);
    nan.flag_nan(a);
    nan.flag_nan(b);
  }
  for (; i < size; i += kLanes) {
    const auto a = size - i < kLanes ? Lanes::load_tail(row + i, size - i, -kInfinity) : Lanes::load(row + i);
    even.max(a);
    nan.flag_nan(a);
  }
  if (nan.any()) return kNan;
  even.max(odd);
  float lanes[kLanes];
  even.store(lanes);
  float result = lanes[0];
  for (const float x : lanes) result = x > result ? x : result;
  return result;
}

std::size_t find_first(const float* row, std::size_t size, float value) {
  std::size_t i = 0;
  for (; i + kRun <= size; i += kRun) {
    Counts hits;
    for (std::size_t j = 0; j < 4; ++j) hits.add_equal(Lanes::load(row + i + j * kLanes), value);
    if (hits.any()) break;
  }
  while (i < size && row[i] != value) ++i;
  return i;
}

std::size_t count_greater(const float* row, std::size_t size, float value) {
  Counts counts;
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) counts.add_greater(Lanes::load(row + i), value);
  std::size_t total = counts.sum();
  for (; i < size; ++i) total += row[i] > value;
  return total;
}

std::size_t count_equal(const float* row, std::size_t size, float value) {
  Counts counts;
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) counts.add_equal(Lanes::load(row + i), value);
  std::size_t total = counts.sum();
  for (; i < size; ++i) total += row[i] == value;
  return total;
}

void exp_row(const float* row, std::size_t size, float max, float scale, float* out) {
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) Lanes::load(row + i).shifted_scaled(max, scale).exp().store(out + i);
  if (i < size) {
    Lanes::load_tail(row + i, size - i, max).shifted_scaled(max, scale).exp().store_head(out + i, size - i);
  }
}

// At most kSumBlock / 32 additions happen in single precision before a block's lanes go to double precision.
void exp_block_sums(const float* row, std::size_t size, float max, float scale, double* sums) {
  for (std::size_t first = 0; first < size; first += kSumBlock) {
    const std::size_t last = size - first < kSumBlock ? size : first + kSumBlock;
    auto even = Lanes::all(0.0f), odd = even;
    std::size_t i = first;
    for (; i + 2 * kLanes <= last; i += 2 * kLanes) {
      even.add(Lanes::load(row + i).shifted_scaled(max, scale).exp());
      odd.add(Lanes::load(row + i + kLanes).shifted_scaled(max, scale).exp());
    }
    for (; i < last; i += kLanes) {
      const auto x = last - i < kLanes ? Lanes::load_tail(row + i, last - i, -kInfinity) : Lanes::load(row + i);
      even.add(x.shifted_scaled(max, scale).exp());
    }
    float a[kLanes], b[kLanes];
    even.store(a);
    odd.store(b);
    double total = 0.0;
    for (std::size_t lane = 0; lane < kLanes; ++lane) total += double{a[lane]} + double{b[lane]};
    sums[first / kSumBlock] = total;
  }
}

void group_max(const float* row, std::size_t size, float* out) {
  for (std::size_t first = 0; first < size; first += kChunk, out += kLanes) {
    const std::size_t last = size - first < kChunk ? size : first + kChunk;
    auto best = Lanes::all(-kInfinity);
    std::size_t i = first;
    for (; i + kLanes <= last; i += kLanes) best.max(Lanes::load(row + i));
    if (i < last) best.max(Lanes::load_tail(row + i, last - i, -kInfinity));
    best.store(out);
  }
}

/// The first i = first + n * kRun at which one of the next kRun values is >= floor, or fewer than kRun are left.
std::size_t skip_below(const float* row, std::size_t first, std::size_t size, float floor) {
  std::size_t i = first;
  for (; i + kRun <= size; i += kRun) {
    Counts hits;
    for (std::size_t j = 0; j < 4; ++j) hits.add_at_least(Lanes::load(row + i + j * kLanes), floor);
    if (hits.any()) break;
  }
  return i;
}

/// `out` may be `row`.
void keep_allowed(const float* row, std::size_t size, const std::uint32_t* mask, float* out) {
  std::size_t i = 0;
  for (; i + 2 * kLanes <= size; i += 2 * kLanes) {
    const std::uint32_t bits = mask[i / 32];
    Lanes::load(row + i).kept(bits & 0xFFFFu).store(out + i);
    Lanes::load(row + i + kLanes).kept(bits >> kLanes).store(out + i + kLanes);
  }
  for (; i < size; ++i) out[i] = (mask[i / 32] >> i % 32 & 1u) != 0 ? row[i] : -kInfinity;
}

constexpr Kernels kernels = {row_max,        find_first, count_greater, count_equal, exp_row,
                             exp_block_sums, group_max,  skip_below,    keep_allowed};
