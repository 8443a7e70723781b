// The emulated twins of the functions of cuda/kernels/ptx.cuh, which documents them.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "emulator/async_copy.hpp"
#include "emulator/failure.hpp"
#include "emulator/intrinsics.hpp"
#include "emulator/warp.hpp"

namespace pagedcore::cuda {

using cuda_emu::Where;

inline void cp_async16(void* shared, const void* global, const Where& where = Where::current()) {
  cuda_emu::copy_async(shared, global, 16, where);
}
inline void cp_async16_zfill(void* shared, const void* global, bool valid, const Where& where = Where::current()) {
  cuda_emu::copy_async(shared, valid ? global : nullptr, 16, where);
}
inline void cp_async4_zfill(void* shared, const void* global, bool valid, const Where& where = Where::current()) {
  cuda_emu::copy_async(shared, valid ? global : nullptr, 4, where);
}
inline void cp_async_commit() { cuda_emu::commit_copies(); }
template <int Newest>
inline void cp_async_wait() {
  static_assert(Newest >= 0);
  cuda_emu::wait_for_copies(Newest);
}

template <int Matrices>
inline void emulated_ldmatrix(cuda_emu::WarpOp op, std::uint32_t (&r)[Matrices], const void* row, const Where& where) {
  std::uint32_t in[4] = {};
  if (cuda_emu::lane() < 8 * Matrices) cuda_emu::read_shared_row(in, row, where);
  cuda_emu::warp_op(op, 0xffffffffu, 0, in, 4, r, Matrices, where);
}
inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, const Where& where = Where::current()) {
  emulated_ldmatrix(cuda_emu::WarpOp::ldmatrix, r, row, where);
}
inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row, const Where& where = Where::current()) {
  emulated_ldmatrix(cuda_emu::WarpOp::ldmatrix_trans, r, row, where);
}
inline void ldmatrix_x2(std::uint32_t (&r)[2], const void* row, const Where& where = Where::current()) {
  emulated_ldmatrix(cuda_emu::WarpOp::ldmatrix, r, row, where);
}
inline void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* row, const Where& where = Where::current()) {
  emulated_ldmatrix(cuda_emu::WarpOp::ldmatrix_trans, r, row, where);
}

template <typename T>
inline void emulated_mma(cuda_emu::WarpOp op, T (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                         const Where& where) {
  std::uint32_t in[10] = {a[0], a[1], a[2], a[3], b[0], b[1]}, out[4];
  std::memcpy(in + 6, d, sizeof d);
  cuda_emu::warp_op(op, 0xffffffffu, 0, in, 10, out, 4, where);
  std::memcpy(d, out, sizeof d);
}
template <typename T>
inline void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                         const Where& where = Where::current()) {
  static_assert(std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>);
  emulated_mma(std::is_same_v<T, __half> ? cuda_emu::WarpOp::mma_f16 : cuda_emu::WarpOp::mma_bf16, d, a, b, where);
}
inline void mma_m16n8k32_s8(std::int32_t (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                            const Where& where = Where::current()) {
  emulated_mma(cuda_emu::WarpOp::mma_s8, d, a, b, where);
}

/// Off by up to two units in the last place, as the instruction may be; subnormals are zero.
inline float exp2_approx(float x) {
  const float exact = std::exp2(x);
  if (std::fpclassify(exact) != FP_NORMAL) return exact == HUGE_VALF || exact != exact ? exact : 0.0f;
  const std::uint32_t bits = __float_as_uint(x);
  const int off = static_cast<int>((bits ^ bits >> 7 ^ bits >> 15) % 5) - 2;
  return x == 0.0f ? 1.0f : __uint_as_float(static_cast<std::uint32_t>(static_cast<int>(__float_as_uint(exact)) + off));
}

}  // namespace pagedcore::cuda
