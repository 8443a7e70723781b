// Operations that the lanes of a warp do together.
#pragma once

#include <cstdint>

#include "emulator/failure.hpp"

namespace cuda_emu {

enum class WarpOp : std::uint8_t {
  sync,
  shuffle,
  ballot,
  match,
  add,
  min_unsigned,
  max_unsigned,
  min_signed,
  max_signed,
  bit_and,
  bit_or,
  bit_xor,
  ldmatrix,
  ldmatrix_trans,
  mma_f16,
  mma_bf16,
  mma_s8,
};
const char* name(WarpOp op);

inline constexpr int kMaxWordsIn = 10;
inline constexpr int kMaxWordsOut = 4;

/// One lane's part: waits until all lanes of `mask` have come, then returns its result in `out`. `argument` is the
/// source lane of a shuffle. Only WarpOp::sync orders memory.
void warp_op(WarpOp op, std::uint32_t mask, int argument, const std::uint32_t* in, int words_in, std::uint32_t* out,
             int words_out, const Where& where);

/// What all lanes gave, and what each receives.
struct WarpExchange {
  WarpOp op = WarpOp::sync;
  std::uint32_t mask = 0, arrived = 0;
  int words_in = 0, words_out = 0;
  Where where;
  std::uint32_t in[32][kMaxWordsIn];
  int argument[32];
};
using LaneWords = std::uint32_t[kMaxWordsOut];
void resolve(const WarpExchange& exchange, LaneWords (&out)[32]);
void resolve_tensor_core(const WarpExchange& exchange, LaneWords (&out)[32]);

unsigned lane();

}  // namespace cuda_emu
