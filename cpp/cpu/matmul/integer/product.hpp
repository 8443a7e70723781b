// The loops of a product in integers; kernel.hpp has its arithmetic. Include after expand.hpp, in per-ISA sources.
#pragma once

#include <cstring>

#include "cpu/matmul/epilogue.hpp"
#include "cpu/matmul/integer/expand.hpp"
#include "cpu/matmul/leaf_sums.hpp"

namespace pagedcore::cpu {
namespace {

/// What the codes that an expanded group holds are above those of the format, as a power of two; -1: nothing.
template <class Type>
constexpr int zero_power() {
  const int zero = Type::Codes::kBits == 8 ? (Quads::kSigned ? 0 : 128) : Type::Codes::kZero;
  int power = -1;
  for (int rest = zero; rest > 0; rest /= 2) ++power;
  return power;
}

/// How the expanded groups of a format are multiplied.
template <int Zero, int Halves, bool Minimum, bool Signed>
struct Form {
  static constexpr int kZero = Zero, kHalves = Halves;
  static constexpr bool kMinimum = Minimum, kSigned = Signed;
  static constexpr std::int64_t kBytes = (32 + 4 * Halves * (Minimum ? 2 : 1)) * kColumns;  // of an expanded group
};
template <class Type>
using FormOf = Form<zero_power<Type>(), Type::kHalves, Type::kMinimum, Quads::kSigned && Type::Codes::kBits == 8>;

/// A panel whose groups are expanded.
template <class Form>
struct Expanded {
  const unsigned char* groups;
  Expanded(const MatmulArgs&, const unsigned char* panel) : groups(panel) {}
  const unsigned char* at(std::int64_t group) { return groups + group * Form::kBytes; }
};

/// A panel in its format: expanded into L1, a few groups at a time.
template <class Form>
struct Stretch {
  static constexpr std::int64_t kGroups = 4;
  const MatmulArgs& a;
  const unsigned char* panel;
  std::int64_t first = 0, end = 0;
  alignas(64) unsigned char groups[kGroups * Form::kBytes];
  Stretch(const MatmulArgs& args, const unsigned char* from) : a(args), panel(from) {}
  /// Groups come in ascending order; one may come again.
  const unsigned char* at(std::int64_t group) {
    if (group == end) {
      const std::int64_t left = a.k / 32 - group;
      first = group;
      end = group + (left < kGroups ? left : kGroups);
      a.widen(panel, first, end - first, groups);
    }
    return groups + (group - first) * Form::kBytes;
  }
};

/// -(what the inputs' codes add to an integer sum that should not be in it), before the first product.
template <class Form>
inline Quads::V start_of(const InputGroup& in, int half) {
  if constexpr (Form::kZero < 0) return Quads::zero();
  Quads::V sum = Quads::all(Form::kHalves == 2 && half == 1 ? in.negative_upper_sum : in.negative_sum);
  if (Form::kHalves == 2 && half == 0) sum = Quads::less(sum, Quads::all(in.negative_upper_sum));
  return Quads::times_power < Form::kZero < 0 ? 0 : Form::kZero > (sum);
}

/// The scale times the sum of the codes that belong to a minimum.
template <class Form>
inline Simd::F scaled_sum_of(const InputGroup& in, int half) {
  if constexpr (Form::kHalves == 1) return Simd::set1(in.scaled_sum);
  const std::int32_t upper = -in.negative_upper_sum;
  return Simd::set1(in.scale * static_cast<float>(half == 1 ? upper : -in.negative_sum - upper));
}

/// Adds one group: `Rows` rows times the columns of a panel.
template <class Form, int Rows>
inline void add_group(const InputGroup* in, const unsigned char* weights, Simd::F (&sum)[Rows][2]) {
  constexpr int kSteps = 8 / Form::kHalves;
  const float* numbers = reinterpret_cast<const float*>(weights + 32 * kColumns);
  Simd::F scaled[Rows][2];
#pragma GCC unroll 2
  for (int half = 0; half < Form::kHalves; ++half) {
    Quads::V dot[Rows][2];
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) dot[r][0] = dot[r][1] = start_of<Form>(in[r], half);
#pragma GCC unroll 8
    for (int s = 0; s < kSteps; ++s) {
      const int step = half * kSteps + s;
      const Quads::V w0 = Quads::load(weights + 2 * step * Quads::kBytes);
      const Quads::V w1 = Quads::load(weights + (2 * step + 1) * Quads::kBytes);
#pragma GCC unroll 6
      for (int r = 0; r < Rows; ++r) {
        const Quads::V x = Quads::quad(in[r].codes + 4 * step);
        dot[r][0] = Quads::template dot<Form::kSigned>(dot[r][0], w0, x);
        dot[r][1] = Quads::template dot<Form::kSigned>(dot[r][1], w1, x);
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const Simd::F scale = Simd::load(numbers + (2 * half + v) * kLanes);
#pragma GCC unroll 6
      for (int r = 0; r < Rows; ++r) {
        const Simd::F n = Quads::numbers(dot[r][v]);
        scaled[r][v] = half == 0 ? Simd::mul(n, scale) : Quads::fma(n, scale, scaled[r][v]);
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < Rows; ++r) {
    const Simd::F scale = Simd::set1(in[r].scale);
    sum[r][0] = Quads::fma(scaled[r][0], scale, sum[r][0]);
    sum[r][1] = Quads::fma(scaled[r][1], scale, sum[r][1]);
  }
  if constexpr (Form::kMinimum)
#pragma GCC unroll 2
    for (int half = 0; half < Form::kHalves; ++half) {
      const float* minima = numbers + 2 * (Form::kHalves + half) * kLanes;
#pragma GCC unroll 6
      for (int r = 0; r < Rows; ++r) {
        const Simd::F of_input = scaled_sum_of<Form>(in[r], half);
        sum[r][0] = Quads::fma(Simd::load(minima), of_input, sum[r][0]);
        sum[r][1] = Quads::fma(Simd::load(minima + kLanes), of_input, sum[r][1]);
      }
    }
}

/// One tile: `Rows` rows times one panel. Its sums are then at the beginning of `stack` (leaf_sums.hpp).
template <class Form, class Panel, int Rows>
void integer_tile(const MatmulArgs& a, const InputGroup* in, const unsigned char* weights, float* stack) {
  Panel panel(a, weights);
  std::int64_t k = 0, done = 0;  // of groups of the input
  for (std::int64_t leaf = 0; leaf < a.num_leaves; ++leaf) {
    Simd::F sum[Rows][2];
    for (int r = 0; r < Rows; ++r) sum[r][0] = sum[r][1] = Simd::zero();
    const std::int64_t end = a.leaves[leaf].padded_end / 32;
    for (std::int64_t group = k / 32; done < end; ++done, ++group, in += Rows)
      add_group<Form, Rows>(in, panel.at(group), sum);
    k = a.leaves[leaf].k_end;
    take_leaf<Rows>(sum, leaf, leaf + 1 == a.num_leaves, stack);
  }
}

template <class Form, class Panel, int MaxRows>
void integer_tile_of(int rows, const MatmulArgs& a, const InputGroup* in, const unsigned char* w, float* stack) {
  if (rows == MaxRows)
    integer_tile<Form, Panel, MaxRows>(a, in, w, stack);
  else if constexpr (MaxRows > 1)
    integer_tile_of<Form, Panel, MaxRows - 1>(rows, a, in, w, stack);
}

template <class Form, class Panel>
void integer_tile_at(const MatmulArgs& a, const MatmulBlock& block, std::int64_t row, std::int64_t panel) {
  alignas(64) float stack[kLeafLevels * kTileFloats<Quads::kTileRows>];
  const std::int64_t left = block.end_row - row;
  const int rows = left < Quads::kTileRows ? static_cast<int>(left) : Quads::kTileRows;
  const InputGroup* in = static_cast<const InputGroup*>(a.in) + row * (a.k_padded / 32);
  const unsigned char* weights = static_cast<const unsigned char*>(a.weights) + panel * a.panel_bytes;
  integer_tile_of<Form, Panel, Quads::kTileRows>(rows, a, in, weights, stack);
  finish_tile(a, row, rows, panel, stack);
}

/// Expanded panels stay in L2 and rows in L1: rows outside, and what comes after is asked for a piece a tile. In their
/// format, which few rows take, panels stay.
template <class Form>
void run_integer(const MatmulArgs& a, const MatmulBlock& block) {
  if (a.widen == nullptr) {
    const std::int64_t tiles = (block.end_row - block.first_row + Quads::kTileRows - 1) / Quads::kTileRows *
                               (block.end_panel - block.first_panel);
    std::int64_t asked = 0, ask = 0;
    for (std::int64_t row = block.first_row; row < block.end_row; row += Quads::kTileRows)
      for (std::int64_t panel = block.first_panel; panel < block.end_panel; ++panel) {
        for (ask += (a.ahead_bytes + tiles - 1) / tiles; asked < ask && asked < a.ahead_bytes; asked += 64)
          __builtin_prefetch(a.ahead + asked, 0, 2);
        integer_tile_at<Form, Expanded<Form>>(a, block, row, panel);
      }
    return;
  }
  for (std::int64_t panel = block.first_panel; panel < block.end_panel; ++panel)
    for (std::int64_t row = block.first_row; row < block.end_row; row += Quads::kTileRows)
      integer_tile_at<Form, Stretch<Form>>(a, block, row, panel);
}

/// As IntegerKernel::prepare says, of numbers that are bf16 and zeros.
inline void prepare_group(const std::uint32_t (&bits)[32], InputGroup& to) {
  constexpr std::uint32_t kInfinity = 0x7f800000u, kLeast = (127u - 119u) << 23;
  std::uint32_t most = 0;
  for (int i = 0; i < 32; ++i) {
    const std::uint32_t magnitude = bits[i] & 0x7fffffffu;
    most = magnitude > most ? magnitude : most;
  }
  float largest;
  std::memcpy(&largest, &most, sizeof largest);
  if (most < kLeast || most >= kInfinity) {
    to = InputGroup{};
    if (most >= kInfinity) to.scale = to.scaled_sum = largest - largest;  // NaN
    return;
  }
  float numbers[32];
  std::memcpy(numbers, bits, sizeof numbers);
  const float factor = 127.0f / largest;
  std::int32_t codes[32], sum = 0, upper = 0;
  constexpr float kRounds = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to integers
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<std::int32_t>((numbers[i] * factor + kRounds) - kRounds);
  for (int i = 0; i < 32; ++i) to.codes[i] = static_cast<std::int8_t>(codes[i]);
  for (int i = 0; i < 32; ++i) sum += codes[i];
  for (int i = 16; i < 32; ++i) upper += codes[i];
  to.scale = largest / 127.0f;
  to.scaled_sum = to.scale * static_cast<float>(sum);
  to.negative_sum = -sum;
  to.negative_upper_sum = -upper;
}

inline void prepare_row(const MatmulArgs& a, const std::uint16_t* in, std::int64_t stride, InputGroup* to) {
  for (std::int64_t leaf = 0, k = 0; leaf < a.num_leaves; ++leaf)
    while (k < a.leaves[leaf].k_end) {
      const std::int64_t begin = k / 32 * 32;
      const std::int64_t end = begin + 32 < a.leaves[leaf].k_end ? begin + 32 : a.leaves[leaf].k_end;
      std::uint32_t bits[32] = {};
      if (end - k == 32)
        for (int i = 0; i < 32; ++i) bits[i] = static_cast<std::uint32_t>(in[k + i]) << 16;
      else
        for (std::int64_t i = k; i < end; ++i) bits[i - begin] = static_cast<std::uint32_t>(in[i]) << 16;
      prepare_group(bits, *to);
      to += stride;
      k = end;
    }
}

void prepare(const MatmulArgs& a, std::int64_t first, std::int64_t end, InputGroup* groups) {
  const std::uint16_t* in = static_cast<const std::uint16_t*>(a.in);
  for (std::int64_t row = first; row < end; row += Quads::kTileRows) {
    const std::int64_t rows = end - row < Quads::kTileRows ? end - row : Quads::kTileRows;
    for (std::int64_t r = 0; r < rows; ++r)
      prepare_row(a, in + (row + r) * a.in_stride, rows, groups + row * (a.k_padded / 32) + r);
  }
}

template <class Type>
constexpr IntegerProduct product() {
  using Form = FormOf<Type>;
  constexpr int kZero = Form::kZero < 0 ? 0 : 1 << (Form::kZero < 0 ? 0 : Form::kZero);
  return {expand<Type>,   Form::kBytes,     kZero, Type::Codes::kBits == 8 && Quads::kSigned, Form::kHalves,
          Form::kMinimum, run_integer<Form>};
}

constexpr IntegerKernel integer_kernel(const char* name) {
  return {name,
          kLanes,
          Quads::kTileRows,
          prepare,
          product<Q4_0>(),
          product<Q4_1>(),
          product<Q5_0>(),
          product<Q5_1>(),
          product<Q8_0>(),
          product<Q2_K>(),
          product<Q3_K>(),
          product<Q4_K>(),
          product<Q5_K>(),
          product<Q6_K>(),
          product<Int4_G32>(),
          product<Int4_G128>(),
          product<Int8_G128>()};
}

}  // namespace
}  // namespace pagedcore::cpu
