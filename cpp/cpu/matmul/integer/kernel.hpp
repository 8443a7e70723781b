// Products in integers: codes of weights times codes of inputs. Plain data only, as kernel.hpp.
//
// An input is cut along k into groups: a multiple of 32 ends one, and so does the end of a leaf, so that no scale spans
// two leaves. A group has one scale, and codes in [-127, 127]; columns of its 32 that belong to another leaf are 0. An
// output is, for each leaf, one sum in f32 over its groups in ascending order, and the tree over the leaves. A group
// adds
//
//   sum = fma(t, scale of the input, sum)      t = the exact integer sum of code * code, times the weights' scale;
//   where
//                                              each half of 32 k has its own: fma(n1, s1, n0 * s0)
//   sum = fma(minimum, scaled sum of the input's codes, sum)      where weights have a minimum; of each half in turn
//
// so that every instruction set has the same bits, whatever the tile, the batch and the threads.
#pragma once

#include <cstdint>

#include "cpu/matmul/kernel.hpp"

namespace pagedcore::cpu {

/// Of one row: up to 32 consecutive k. Of tiles of rows, [groups][rows of the tile].
struct InputGroup {
  float scale = 0;                      // of a code
  float scaled_sum = 0;                 // scale * the sum of all codes
  std::int32_t negative_sum = 0;        // - the sum of all codes
  std::int32_t negative_upper_sum = 0;  // of the last sixteen
  std::int8_t codes[32] = {};
};

/// The kernel of one block format. Panels come in the format (`MatmulArgs::widen` is its `expand`), or expanded.
struct IntegerProduct {
  WidenFunction expand = nullptr;   // as widen_table.hpp says, but to the form that `run` reads
  std::int64_t expanded_bytes = 0;  // of one group of a panel
  int zero = 0;                     // that an expanded code stands for number - zero
  bool is_signed = false;           // it is signed
  int halves = 1;                   // scales, and minima, of a group
  bool minimum = false;
  void (*run)(const MatmulArgs& args, const MatmulBlock& block) = nullptr;
};

/// In MatmulArgs, `in` are the groups of all rows, tile after tile; a leaf's `padded_end` counts 32 for each group.
struct IntegerKernel {
  const char* name = nullptr;
  int lanes = 0;
  int rows = 0;  // of a tile; blocks begin at a multiple of it
  /// The groups of rows [first, end), where `args.in` are numbers in bf16 and `first` begins a tile. A scale is the
  /// largest magnitude / 127; codes are the numbers times 127 / that, rounded to nearest even. A group whose
  /// magnitudes are all below 2^-119 has scale 0, one that holds an infinity or a NaN has scale NaN; codes are 0.
  void (*prepare)(const MatmulArgs& args, std::int64_t first, std::int64_t end, InputGroup* groups) = nullptr;
  IntegerProduct q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, int4_g32, int4_g128, int8_g128;
};

extern const IntegerKernel portable_integer_kernel;
#if defined(__x86_64__)
extern const IntegerKernel avx2_integer_kernel, avxvnni_integer_kernel;
extern const IntegerKernel avx512_integer_kernel, avx512vnni_integer_kernel;
#endif

}  // namespace pagedcore::cpu
