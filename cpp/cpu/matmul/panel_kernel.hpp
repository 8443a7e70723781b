// The matmul of one instruction set, given its vectors (Simd) and how one step along k is done (Step). Every output is
// one accumulator that walks a leaf of k in order, and a tree over the leaves, whatever the tile around it: that is why
// a row's bits do not depend on the batch. Independent outputs, tile_rows x two vectors of columns, hide the latency of
// the sum.
// Include after simd_*.hpp and epilogue.hpp, in one source per instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/matmul/kernel.hpp"
#include "cpu/matmul/leaf_sums.hpp"

namespace pagedcore::cpu {
namespace {

/// How far ahead of its use a weight is asked for. Panels lie one after another, so this runs on into the next.
constexpr std::int64_t kPrefetchBytes = 4096;

constexpr std::int64_t kBlockBytes = 512 << 10;  // weights that stay in L2 while rows pass over them

/// A tile's rows of `element` bytes each.
inline std::int64_t rows_of_scratch(const MatmulArgs& a, std::int64_t element) {
  const std::int64_t rows = a.m < Simd::tile_rows ? a.m : Simd::tile_rows;
  return (rows * a.k_padded * element + 63) / 64 * 64;
}

/// f32 weights, f32 inputs.
struct StepF32 {
  using Input = float;            // what tiles read inputs as
  static constexpr int k = 1;     // inputs that a step consumes
  static constexpr int subs = 1;  // multiply-adds of a step
  static Simd::F weights(const unsigned char* w, int) { return Simd::load(reinterpret_cast<const float*>(w)); }
  static Simd::F input(const Input* in, int) { return Simd::set1(*in); }
  static Simd::F mac(Simd::F in, Simd::F w, Simd::F sum) { return Simd::fma(in, w, sum); }
  static std::int64_t scratch_bytes(const MatmulArgs&) { return 0; }
  static const Input* rows(const MatmulArgs& a, std::int64_t row, int, void*, std::int64_t& stride) {
    stride = a.in_stride;
    return static_cast<const float*>(a.in) + row * stride;
  }
};

/// bf16 weights and inputs, multiplied and added in f32: for instruction sets without a bf16 product. Inputs are
/// widened once per row, weights on each load.
struct StepWidened {
  using Input = float;
  static constexpr int k = 2;
  static constexpr int subs = 2;
  static Simd::F weights(const unsigned char* w, int sub) {
    return sub == 0 ? Simd::widen_low(w) : Simd::widen_high(w);
  }
  static Simd::F input(const Input* in, int sub) { return Simd::set1(in[sub]); }
  static Simd::F mac(Simd::F in, Simd::F w, Simd::F sum) { return Simd::fma(in, w, sum); }
  static std::int64_t scratch_bytes(const MatmulArgs& a) { return rows_of_scratch(a, sizeof(Input)); }
  static const Input* rows(const MatmulArgs& a, std::int64_t row, int count, void* scratch, std::int64_t& stride) {
    stride = a.k_padded;
    float* to = static_cast<float*>(scratch);
    for (int r = 0; r < count; ++r, to += stride) {
      const std::uint16_t* from = static_cast<const std::uint16_t*>(a.in) + (row + r) * a.in_stride;
      std::int64_t i = 0, at = 0;
      for (std::int64_t leaf = 0; leaf < a.num_leaves; ++leaf) {
        for (; i < a.leaves[leaf].k_end; ++i, ++at) {
          const std::uint32_t bits = static_cast<std::uint32_t>(from[i]) << 16;
          std::memcpy(to + at, &bits, sizeof bits);
        }
        for (; at < a.leaves[leaf].padded_end; ++at) to[at] = 0.0f;
      }
    }
    return static_cast<const float*>(scratch);
  }
};

constexpr std::int64_t kStepBytes = 2 * Simd::lanes * 4;  // of a panel in the compute type

/// A panel whose weights lie in memory as steps take them.
struct DensePanel {
  const unsigned char* weights;
  static constexpr bool prefetch = true;
  DensePanel(const MatmulArgs&, const unsigned char* panel) : weights(panel) {}
  /// Where step `s` is, which those before `end` follow.
  const unsigned char* at(std::int64_t s, std::int64_t&) { return weights + s * kStepBytes; }
};

/// A native panel (native/format.hpp): widened into L1, a stretch at a time.
template <class Step>
struct NativePanel {
  static constexpr std::int64_t kGroups = 4, kSteps = kGroups * 32 / Step::k;
  static constexpr bool prefetch = false;  // widening does that
  const MatmulArgs& a;
  const unsigned char* codes;
  alignas(64) unsigned char stretch[kSteps * kStepBytes];
  NativePanel(const MatmulArgs& args, const unsigned char* panel) : a(args), codes(panel) {}
  /// As DensePanel's; `end` moves to that of the stretch. Steps come in order, from 0 on.
  const unsigned char* at(std::int64_t s, std::int64_t& end) {
    const std::int64_t inside = s % kSteps, left = a.k / 32 - s * Step::k / 32;
    if (inside == 0) a.widen(codes, s * Step::k / 32, left < kGroups ? left : kGroups, stretch);
    if (end > s - inside + kSteps) end = s - inside + kSteps;
    return stretch + inside * kStepBytes;
  }
};

/// One tile: `Rows` rows of inputs, from `row` on, times one panel. Its sums [Rows][2 * lanes] are then at the
/// beginning of `stack`, which has room for kLeafLevels times as much.
template <class Step, class Panel, int Rows>
void tile(const MatmulArgs& a, std::int64_t row, const typename Step::Input* in, std::int64_t in_stride,
          const unsigned char* weights, float* stack) {
  constexpr int kVectorBytes = Simd::lanes * 4;
  Panel panel(a, weights);
  for (std::int64_t leaf = 0, s = 0; leaf < a.num_leaves; ++leaf) {
    Simd::F sum[Rows][2];
    for (int r = 0; r < Rows; ++r) sum[r][0] = sum[r][1] = Simd::zero();
    const std::int64_t leaf_end = a.leaves[leaf].padded_end / Step::k;
    while (s < leaf_end) {
      std::int64_t end = leaf_end;
      for (const unsigned char* w = panel.at(s, end); s < end; ++s) {
        if constexpr (Panel::prefetch) {
          __builtin_prefetch(w + kPrefetchBytes, 0, 2);
          if constexpr (kVectorBytes == 64) __builtin_prefetch(w + kPrefetchBytes + 64, 0, 2);
        }
        for (int sub = 0; sub < Step::subs; ++sub) {
          const auto w0 = Step::weights(w, sub), w1 = Step::weights(w + kVectorBytes, sub);
          for (int r = 0; r < Rows; ++r) {
            const auto x = Step::input(in + r * in_stride, sub);
            sum[r][0] = Step::mac(x, w0, sum[r][0]);
            sum[r][1] = Step::mac(x, w1, sum[r][1]);
          }
        }
        in += Step::k;
        w += kStepBytes;
      }
    }
    if (a.finish == Finish::leaf_sums) {
      take_leaf<Rows>(sum, 0, true, stack);
      add_leaf(a, row, Rows, leaf, stack);
    } else {
      take_leaf<Rows>(sum, leaf, leaf + 1 == a.num_leaves, stack);
    }
  }
}

template <class Step, class Panel, int MaxRows>
void tile_of(int rows, const MatmulArgs& a, std::int64_t row, const typename Step::Input* in, std::int64_t in_stride,
             const unsigned char* w, float* stack) {
  if (rows == MaxRows)
    tile<Step, Panel, MaxRows>(a, row, in, in_stride, w, stack);
  else if constexpr (MaxRows > 1)
    tile_of<Step, Panel, MaxRows - 1>(rows, a, row, in, in_stride, w, stack);
}

/// Rows outside, panels inside: the rows stay in L1, the panels of the block in L2. What comes after it is asked for a
/// piece a tile: reads of memory pass while the tile is computed.
template <class Step, class Panel>
void run_panels(const MatmulArgs& args, const MatmulBlock& block, void* scratch) {
  alignas(64) float stack[kLeafLevels * kTileFloats<Simd::tile_rows>];
  const unsigned char* weights = static_cast<const unsigned char*>(args.weights);
  const std::int64_t tiles =
      (block.end_row - block.first_row + Simd::tile_rows - 1) / Simd::tile_rows * (block.end_panel - block.first_panel);
  std::int64_t asked = 0, ask = 0;  // bytes of what comes after
  for (std::int64_t row = block.first_row; row < block.end_row; row += Simd::tile_rows) {
    const std::int64_t left = block.end_row - row;
    const int rows = left < Simd::tile_rows ? static_cast<int>(left) : Simd::tile_rows;
    std::int64_t stride = 0;
    const typename Step::Input* in = Step::rows(args, row, rows, scratch, stride);
    for (std::int64_t panel = block.first_panel; panel < block.end_panel; ++panel) {
      for (ask += (args.ahead_bytes + tiles - 1) / tiles; asked < ask && asked < args.ahead_bytes; asked += 64)
        __builtin_prefetch(args.ahead + asked, 0, 2);
      tile_of<Step, Panel, Simd::tile_rows>(rows, args, row, in, stride, weights + panel * args.panel_bytes, stack);
      if (args.finish != Finish::leaf_sums) finish_tile(args, row, rows, panel, stack);
    }
  }
}

template <class Step>
void run_block(const MatmulArgs& args, const MatmulBlock& block, void* scratch) {
  if (args.widen == nullptr)
    run_panels<Step, DensePanel>(args, block, scratch);
  else
    run_panels<Step, NativePanel<Step>>(args, block, scratch);
}

template <class Step>
constexpr MatmulKernel panel_kernel() {
  return {Simd::lanes, Simd::tile_rows, Step::k, kBlockBytes, Step::scratch_bytes, run_block<Step>, true};
}

}  // namespace
}  // namespace pagedcore::cpu
