// Device functions that the toolkit's headers declare for nvcc only.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "emulator/failure.hpp"
#include "emulator/warp.hpp"

// CUDA finds these in the global namespace, for these types and no mixture of them.
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long min(long a, long b) { return a < b ? a : b; }
inline long max(long a, long b) { return a > b ? a : b; }
inline unsigned long min(unsigned long a, unsigned long b) { return a < b ? a : b; }
inline unsigned long max(unsigned long a, unsigned long b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline unsigned long long min(unsigned long long a, unsigned long long b) { return a < b ? a : b; }
inline unsigned long long max(unsigned long long a, unsigned long long b) { return a > b ? a : b; }
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }

// ---- bits ----
inline float __uint_as_float(std::uint32_t u) { return std::bit_cast<float>(u); }
inline float __int_as_float(int i) { return std::bit_cast<float>(i); }
inline std::uint32_t __float_as_uint(float f) { return std::bit_cast<std::uint32_t>(f); }
inline int __float_as_int(float f) { return std::bit_cast<int>(f); }
inline int __popc(std::uint32_t x) { return std::popcount(x); }
inline int __popcll(std::uint64_t x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<std::uint32_t>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<std::uint64_t>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline std::uint32_t __brev(std::uint32_t x) {
  std::uint32_t r = 0;
  for (int i = 0; i < 32; ++i) r |= (x >> i & 1u) << (31 - i);
  return r;
}
inline std::uint32_t __byte_perm(std::uint32_t low, std::uint32_t high, std::uint32_t selector) {
  const std::uint64_t bytes = static_cast<std::uint64_t>(high) << 32 | low;
  std::uint32_t r = 0;
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t choice = selector >> (4 * i) & 0xfu;
    auto byte = static_cast<std::uint32_t>(bytes >> (8 * (choice & 7u))) & 0xffu;
    if (choice & 8u) byte = byte & 0x80u ? 0xffu : 0;
    r |= byte << (8 * i);
  }
  return r;
}
inline std::uint32_t __umulhi(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::uint32_t>(static_cast<std::uint64_t>(a) * b >> 32);
}
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i) c += static_cast<std::int8_t>(a >> (8 * i)) * static_cast<std::int8_t>(b >> (8 * i));
  return c;
}

// ---- f32 ----
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline void sincospif(float x, float* sin, float* cos) {
  *sin = static_cast<float>(std::sin(M_PI * x));
  *cos = static_cast<float>(std::cos(M_PI * x));
}
/// Of divisors beyond 2^126 what CUDA gives: 0, and NaN for an infinite dividend.
inline float __fdividef(float a, float b) { return std::fabs(b) > 0x1p126f ? a * 0.0f : a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __saturatef(float x) { return x != x ? 0.0f : std::fmin(std::fmax(x, 0.0f), 1.0f); }
// Conversions to integers saturate and take NaN to zero.
inline int __float2int_rz(float x) {
  return x != x ? 0 : static_cast<int>(std::clamp(static_cast<double>(x), -2147483648.0, 2147483647.0));
}
inline int __float2int_rn(float x) { return __float2int_rz(std::nearbyint(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(std::uint32_t x) { return static_cast<float>(x); }

// ---- loads and stores with a cache hint; as a GPU does, they fault on an address that is not a multiple of the size
// ----
namespace cuda_emu {
template <typename T>
inline void check_alignment(const T* p, const Where& where) {
  if (reinterpret_cast<std::uintptr_t>(p) % sizeof(T) != 0) {
    fail("an access of " + std::to_string(sizeof(T)) + " bytes is not aligned to its size", where);
  }
}
}  // namespace cuda_emu
#define CUDA_EMU_LOAD(name)                                                              \
  template <typename T>                                                                  \
  inline T name(const T* p, const cuda_emu::Where& where = cuda_emu::Where::current()) { \
    cuda_emu::check_alignment(p, where);                                                 \
    return *p;                                                                           \
  }
#define CUDA_EMU_STORE(name)                                                                                         \
  template <typename T>                                                                                              \
  inline void name(T* p, std::type_identity_t<T> value, const cuda_emu::Where& where = cuda_emu::Where::current()) { \
    cuda_emu::check_alignment(p, where);                                                                             \
    *p = value;                                                                                                      \
  }
CUDA_EMU_LOAD(__ldg)
CUDA_EMU_LOAD(__ldcg)
CUDA_EMU_LOAD(__ldca)
CUDA_EMU_LOAD(__ldcs)
CUDA_EMU_LOAD(__ldlu)
CUDA_EMU_LOAD(__ldcv)
CUDA_EMU_STORE(__stwb)
CUDA_EMU_STORE(__stcg)
CUDA_EMU_STORE(__stcs)
CUDA_EMU_STORE(__stwt)
#undef CUDA_EMU_LOAD
#undef CUDA_EMU_STORE

// ---- atomics: relaxed, as on a GPU, and really atomic, so that ThreadSanitizer knows them ----
namespace cuda_emu {
template <typename T, typename F>
inline T atomic_update(T* p, F&& f) {
  T old, next;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do next = f(old);
  while (!__atomic_compare_exchange(p, &old, &next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
}  // namespace cuda_emu
template <typename T>
inline T atomicAdd(T* p, std::type_identity_t<T> v) {
  return cuda_emu::atomic_update(p, [v](T old) -> T { return old + v; });
}
template <typename T>
inline T atomicSub(T* p, std::type_identity_t<T> v) {
  return cuda_emu::atomic_update(p, [v](T old) -> T { return old - v; });
}
template <typename T>
inline T atomicMin(T* p, std::type_identity_t<T> v) {
  static_assert(std::is_integral_v<T>);
  return cuda_emu::atomic_update(p, [v](T old) -> T { return old < v ? old : v; });
}
template <typename T>
inline T atomicMax(T* p, std::type_identity_t<T> v) {
  static_assert(std::is_integral_v<T>);
  return cuda_emu::atomic_update(p, [v](T old) -> T { return old > v ? old : v; });
}
template <typename T>
inline T atomicAnd(T* p, std::type_identity_t<T> v) {
  return __atomic_fetch_and(p, v, __ATOMIC_RELAXED);
}
template <typename T>
inline T atomicOr(T* p, std::type_identity_t<T> v) {
  return __atomic_fetch_or(p, v, __ATOMIC_RELAXED);
}
template <typename T>
inline T atomicExch(T* p, std::type_identity_t<T> v) {
  return cuda_emu::atomic_update(p, [v](T) { return v; });
}
template <typename T>
inline T atomicCAS(T* p, std::type_identity_t<T> compare, std::type_identity_t<T> v) {
  return cuda_emu::atomic_update(p, [=](T old) { return old == compare ? v : old; });
}
inline unsigned atomicInc(unsigned* p, unsigned limit) {
  return cuda_emu::atomic_update(p, [limit](unsigned old) { return old >= limit ? 0u : old + 1; });
}

// ---- warps ----
inline void __syncwarp(std::uint32_t mask = 0xffffffffu, const cuda_emu::Where& where = cuda_emu::Where::current()) {
  cuda_emu::warp_op(cuda_emu::WarpOp::sync, mask, 0, nullptr, 0, nullptr, 0, where);
}

namespace cuda_emu {
template <typename T>
inline T shuffle(std::uint32_t mask, T value, int source, const Where& where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8, "shuffles move 2, 4 or 8 bytes");
  constexpr int words = (sizeof(T) + 3) / 4;
  std::uint32_t in[words] = {}, out[words];
  std::memcpy(in, &value, sizeof value);
  warp_op(WarpOp::shuffle, mask, source, in, words, out, words, where);
  std::memcpy(&value, out, sizeof value);
  return value;
}
/// The first and last lane of the calling lane's segment.
struct Segment {
  int lane, first, last;
  Segment(int width, const Where& where) : lane(static_cast<int>(cuda_emu::lane())) {
    if (width < 1 || width > 32 || !std::has_single_bit(static_cast<unsigned>(width))) {
      fail("a shuffle of width " + std::to_string(width) + ", which is not a power of two up to 32", where);
    }
    first = lane & ~(width - 1);
    last = first + width - 1;
  }
};
}  // namespace cuda_emu
template <typename T>
inline T __shfl_sync(std::uint32_t mask, T value, int source, int width = 32,
                     const cuda_emu::Where& where = cuda_emu::Where::current()) {
  const cuda_emu::Segment s(width, where);
  return cuda_emu::shuffle(mask, value, s.first + (source & (width - 1)), where);
}
template <typename T>
inline T __shfl_xor_sync(std::uint32_t mask, T value, int bits, int width = 32,
                         const cuda_emu::Where& where = cuda_emu::Where::current()) {
  const cuda_emu::Segment s(width, where);
  const int source = s.lane ^ bits;
  return cuda_emu::shuffle(mask, value, source > s.last ? s.lane : source, where);
}
template <typename T>
inline T __shfl_up_sync(std::uint32_t mask, T value, unsigned delta, int width = 32,
                        const cuda_emu::Where& where = cuda_emu::Where::current()) {
  const cuda_emu::Segment s(width, where);
  const int source = s.lane - static_cast<int>(delta);
  return cuda_emu::shuffle(mask, value, source < s.first ? s.lane : source, where);
}
template <typename T>
inline T __shfl_down_sync(std::uint32_t mask, T value, unsigned delta, int width = 32,
                          const cuda_emu::Where& where = cuda_emu::Where::current()) {
  const cuda_emu::Segment s(width, where);
  const int source = s.lane + static_cast<int>(delta);
  return cuda_emu::shuffle(mask, value, source > s.last ? s.lane : source, where);
}

namespace cuda_emu {
inline std::uint32_t one_word(WarpOp op, std::uint32_t mask, std::uint32_t in, const Where& where) {
  std::uint32_t out;
  warp_op(op, mask, 0, &in, 1, &out, 1, where);
  return out;
}
}  // namespace cuda_emu
inline std::uint32_t __ballot_sync(std::uint32_t mask, int predicate,
                                   const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return cuda_emu::one_word(cuda_emu::WarpOp::ballot, mask, predicate != 0, where);
}
inline int __any_sync(std::uint32_t mask, int predicate, const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return cuda_emu::one_word(cuda_emu::WarpOp::ballot, mask, predicate != 0, where) != 0;
}
inline int __all_sync(std::uint32_t mask, int predicate, const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return cuda_emu::one_word(cuda_emu::WarpOp::ballot, mask, predicate == 0, where) == 0;
}
template <typename T>
inline std::uint32_t __match_any_sync(std::uint32_t mask, T value,
                                      const cuda_emu::Where& where = cuda_emu::Where::current()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  std::uint32_t in[sizeof(T) / 4], out;
  std::memcpy(in, &value, sizeof value);
  cuda_emu::warp_op(cuda_emu::WarpOp::match, mask, 0, in, sizeof(T) / 4, &out, 1, where);
  return out;
}
inline std::uint32_t __reduce_add_sync(std::uint32_t mask, std::uint32_t v,
                                       const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return cuda_emu::one_word(cuda_emu::WarpOp::add, mask, v, where);
}
inline int __reduce_add_sync(std::uint32_t mask, int v, const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return static_cast<int>(cuda_emu::one_word(cuda_emu::WarpOp::add, mask, static_cast<std::uint32_t>(v), where));
}
inline std::uint32_t __reduce_min_sync(std::uint32_t mask, std::uint32_t v,
                                       const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return cuda_emu::one_word(cuda_emu::WarpOp::min_unsigned, mask, v, where);
}
inline int __reduce_min_sync(std::uint32_t mask, int v, const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return static_cast<int>(cuda_emu::one_word(cuda_emu::WarpOp::min_signed, mask, static_cast<std::uint32_t>(v), where));
}
inline std::uint32_t __reduce_max_sync(std::uint32_t mask, std::uint32_t v,
                                       const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return cuda_emu::one_word(cuda_emu::WarpOp::max_unsigned, mask, v, where);
}
inline int __reduce_max_sync(std::uint32_t mask, int v, const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return static_cast<int>(cuda_emu::one_word(cuda_emu::WarpOp::max_signed, mask, static_cast<std::uint32_t>(v), where));
}
inline std::uint32_t __reduce_and_sync(std::uint32_t mask, std::uint32_t v,
                                       const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return cuda_emu::one_word(cuda_emu::WarpOp::bit_and, mask, v, where);
}
inline std::uint32_t __reduce_or_sync(std::uint32_t mask, std::uint32_t v,
                                      const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return cuda_emu::one_word(cuda_emu::WarpOp::bit_or, mask, v, where);
}
inline std::uint32_t __reduce_xor_sync(std::uint32_t mask, std::uint32_t v,
                                       const cuda_emu::Where& where = cuda_emu::Where::current()) {
  return cuda_emu::one_word(cuda_emu::WarpOp::bit_xor, mask, v, where);
}
