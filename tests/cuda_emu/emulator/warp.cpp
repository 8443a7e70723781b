#include "emulator/warp.hpp"

#include <algorithm>

namespace cuda_emu {

const char* name(WarpOp op) {
  switch (op) {
    case WarpOp::sync:
      return "__syncwarp";
    case WarpOp::shuffle:
      return "shuffle";
    case WarpOp::ballot:
      return "vote";
    case WarpOp::match:
      return "__match_any_sync";
    case WarpOp::ldmatrix:
    case WarpOp::ldmatrix_trans:
      return "ldmatrix";
    case WarpOp::mma_f16:
    case WarpOp::mma_bf16:
    case WarpOp::mma_s8:
      return "mma";
    default:
      return "__reduce_sync";
  }
}

namespace {

std::uint32_t combine(WarpOp op, std::uint32_t a, std::uint32_t b) {
  const auto sa = static_cast<std::int32_t>(a), sb = static_cast<std::int32_t>(b);
  switch (op) {
    case WarpOp::add:
      return a + b;
    case WarpOp::min_unsigned:
      return std::min(a, b);
    case WarpOp::max_unsigned:
      return std::max(a, b);
    case WarpOp::min_signed:
      return static_cast<std::uint32_t>(std::min(sa, sb));
    case WarpOp::max_signed:
      return static_cast<std::uint32_t>(std::max(sa, sb));
    case WarpOp::bit_and:
      return a & b;
    case WarpOp::bit_or:
      return a | b;
    default:
      return a ^ b;
  }
}

}  // namespace

void resolve(const WarpExchange& x, LaneWords (&out)[32]) {
  const auto named = [&x](int lane) { return (x.mask >> lane & 1u) != 0; };
  switch (x.op) {
    case WarpOp::sync:
      return;
    case WarpOp::shuffle:
      for (int lane = 0; lane < 32; ++lane) {
        if (!named(lane)) continue;
        const int source = x.argument[lane];
        if (!named(source)) {
          fail("lane " + std::to_string(lane) + " shuffles from lane " + std::to_string(source) +
                   ", which is not in the mask",
               x.where);
        }
        for (int i = 0; i < x.words_out; ++i) out[lane][i] = x.in[source][i];
      }
      return;
    case WarpOp::ballot: {
      std::uint32_t votes = 0;
      for (int lane = 0; lane < 32; ++lane) {
        if (named(lane)) votes |= x.in[lane][0] << lane;
      }
      for (int lane = 0; lane < 32; ++lane) {
        if (named(lane)) out[lane][0] = votes;  // others may not have taken their last result yet
      }
      return;
    }
    case WarpOp::match:
      for (int lane = 0; lane < 32; ++lane) {
        if (!named(lane)) continue;
        out[lane][0] = 0;
        for (int other = 0; other < 32; ++other) {
          if (named(other) && std::equal(x.in[lane], x.in[lane] + x.words_in, x.in[other])) out[lane][0] |= 1u << other;
        }
      }
      return;
    case WarpOp::ldmatrix:
    case WarpOp::ldmatrix_trans:
    case WarpOp::mma_f16:
    case WarpOp::mma_bf16:
    case WarpOp::mma_s8:
      return resolve_tensor_core(x, out);
    default: {
      std::uint32_t result = 0;
      bool first = true;
      for (int lane = 0; lane < 32; ++lane) {
        if (!named(lane)) continue;
        result = first ? x.in[lane][0] : combine(x.op, result, x.in[lane][0]);
        first = false;
      }
      for (int lane = 0; lane < 32; ++lane) {
        if (named(lane)) out[lane][0] = result;
      }
    }
  }
}

}  // namespace cuda_emu
