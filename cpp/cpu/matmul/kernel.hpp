// The interface between the dispatcher (matmul.cpp) and the kernels, one source per instruction set. Plain data only,
// because those sources are compiled with flags of their own and may not share inline code with the rest.
#pragma once

#include <cstdint>

#include "cpu/matmul/native/widen_table.hpp"

namespace pagedcore::cpu {

/// Values as in pagedcore::Epilogue::Kind and pagedcore::Activation. Instead of finishing, `leaf_sums` adds the sum of
/// each leaf to what others gave it: see MatmulRows::places.
enum class Finish : std::uint8_t { store, accumulate, gated, activated, leaf_sums };
enum class ActivationFunction : std::uint8_t { silu, gelu, gelu_tanh, relu, clamped_swiglu };

/// A leaf of k (WeightForm) ends before column `k_end`. In panels it is padded with zeros to whole steps along k, and
/// ends before `padded_end`, a multiple of MatmulKernel::k_multiple.
struct MatmulLeaf {
  std::int64_t k_end = 0, padded_end = 0;
};
constexpr int kLeafLevels = 13;  // of a tree over kMostLeaves leaves, the root's included

/// What finishing needs beside the sums of a row.
struct MatmulRows {
  const float* scale = nullptr;  // of gated: [m], multiplies what is stored of each; or null
  std::int64_t scale_stride = 1;
  float swiglu_alpha = 0.0f, swiglu_limit = 0.0f;  // of all rows, see pagedcore::SwigluParams
  /// Of leaf_sums: [m], the rows of `out`, which has room for one panel: f32 [leaves][rows][2 * lanes], out_stride from
  /// one leaf to the next.
  const std::int32_t* places = nullptr;
};

/// out [m, n] = finish(in [m, k] W^T). W lies in panels, see layout.hpp.
struct MatmulArgs {
  const void* in = nullptr;    // f32 or bf16, as the kernel; never read beyond column k or row m
  std::int64_t in_stride = 0;  // elements
  std::int64_t m = 0;
  std::int64_t k = 0;
  std::int64_t k_padded = 0;           // of a panel: all leaves with their padding
  const MatmulLeaf* leaves = nullptr;  // in order; at least one
  std::int64_t num_leaves = 0;
  const void* weights = nullptr;
  std::int64_t panel_bytes = 0;
  WidenFunction widen = nullptr;  // null: the panels are in the kernel's compute type; else native/format.hpp has them
  const unsigned char* ahead = nullptr;  // what will be read after this block, to be asked for while it is computed
  std::int64_t ahead_bytes = 0;
  void* out = nullptr;
  std::int64_t out_stride = 0;  // elements
  std::int64_t n = 0;           // columns of out
  const float* bias = nullptr;  // [n] or null
  Finish finish = Finish::store;
  ActivationFunction activation = ActivationFunction::silu;
  bool out_is_bf16 = false;
  MatmulRows rows;
};

/// A rectangle of the work: rows of `in` times panels of the weight. first_row is a multiple of Kernel::rows, and so is
/// end_row unless it is m.
struct MatmulBlock {
  std::int64_t first_row = 0, end_row = 0;
  std::int64_t first_panel = 0, end_panel = 0;
};

/// The matmul of one instruction set and compute type.
struct MatmulKernel {
  int lanes = 0;                 // columns of a vector; a panel is two vectors wide
  int rows = 0;                  // rows that pass together over a panel
  int k_multiple = 1;            // k_padded is a multiple of this
  std::int64_t block_bytes = 0;  // weights that a block should hold where many rows pass over them
  /// Bytes of scratch that run() needs; a multiple of 64.
  std::int64_t (*scratch_bytes)(const MatmulArgs& args) = nullptr;
  /// Computes a block. `scratch` (64-byte aligned) belongs to this call.
  void (*run)(const MatmulArgs& args, const MatmulBlock& block, void* scratch) = nullptr;
  bool widens = false;  // run() takes native panels, of at most `rows` rows, and widens them stretch by stretch
};

extern const MatmulKernel portable_f32_kernel, portable_bf16_kernel;
#if defined(__x86_64__)
extern const MatmulKernel avx2_f32_kernel, avx2_bf16_kernel;
extern const MatmulKernel avx512_f32_kernel, avx512_bf16_kernel;  // the second: bf16 widened to f32
extern const MatmulKernel avx512bf16_kernel;                      // bf16 dot products
extern const MatmulKernel amx_kernel;                             // bf16 tiles
#endif

}  // namespace pagedcore::cpu
