// What the emulator computes for well-behaved kernels.
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "device_array.hpp"
#include "emulator/options.hpp"
#include "kernels/device.cuh"
#include "kernels/ptx.cuh"

using cuda_test::DeviceArray;
using cuda_test::finish;
using namespace pagedcore::cuda;

namespace {

__global__ void sum_of_block(int* out, const int* in) {
  PC_SHARED(int[8], sums);
  const unsigned warp = warp_index();
  int x = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_down_sync(kAllLanes, x, offset);
  if (lane_index() == 0) sums[warp] = x;
  __syncthreads();
  if (threadIdx.x == 0) {
    int total = 0;
    for (unsigned w = 0; w < blockDim.x / 32; ++w) total += sums[w];
    out[blockIdx.x] = total;
  }
}

__global__ void warp_functions(unsigned* out) {
  const unsigned lane = lane_index();
  unsigned* mine = out + lane * 8;
  mine[0] = __ballot_sync(kAllLanes, lane % 3 == 0);
  mine[1] = __reduce_add_sync(kAllLanes, lane);
  mine[2] = static_cast<unsigned>(__reduce_min_sync(kAllLanes, static_cast<int>(lane) - 7));
  mine[3] = __match_any_sync(kAllLanes, lane / 5);
  mine[4] = __shfl_xor_sync(kAllLanes, lane, 5);
  mine[5] = __shfl_up_sync(kAllLanes, lane, 3, 8);
  mine[6] = static_cast<unsigned>(__all_sync(kAllLanes, lane < 32)) + 2 * __any_sync(kAllLanes, lane > 31);
  // Half-warps may go separate ways under masks of their own.
  mine[7] = lane < 16 ? __reduce_max_sync(0x0000ffffu, lane) : __reduce_max_sync(0xffff0000u, lane);
}

__global__ void counts(int* out) {
  const int odd = __syncthreads_count(threadIdx.x % 2);
  const int all = __syncthreads_and(threadIdx.x < 64);
  const int any = __syncthreads_or(threadIdx.x == 63);
  if (threadIdx.x == 0) {
    out[0] = odd;
    out[1] = all;
    out[2] = any;
  }
}

/// The last block to finish adds up what the others left, in order.
__global__ void last_block_adds(float* total, float* parts, unsigned* finished) {
  PC_SHARED(unsigned, before);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = 1.0f / static_cast<float>(blockIdx.x + 1);
    __threadfence();
    before = atomicAdd(finished, 1u);
  }
  __syncthreads();
  if (before == gridDim.x - 1 && threadIdx.x == 0) {
    __threadfence();
    float sum = 0.0f;
    for (unsigned i = 0; i < gridDim.x; ++i) sum += parts[i];
    *total = sum;
  }
}

/// Two stages of asynchronous copies through dynamic shared memory; rows past `rows` arrive as zeros.
__global__ void copy_in_stages(float* out, const float* in, int rows) {
  PC_DYNAMIC_SHARED(float, stages);
  const auto load = [&](int row) {
    cp_async16_zfill(stages + row % 2 * 128 + threadIdx.x * 4, in + row * 128 + threadIdx.x * 4, row < rows);
    cp_async_commit();
  };
  load(0);
  for (int row = 0; row < 8; ++row) {
    if (row + 1 < 8) load(row + 1);
    row + 1 < 8 ? cp_async_wait<1>() : cp_async_wait<0>();
    __syncthreads();
    for (int i = 0; i < 4; ++i) out[row * 128 + i * 32 + threadIdx.x] = stages[row % 2 * 128 + i * 32 + threadIdx.x];
    __syncthreads();
  }
}

/// out [16, 8] = a [16, 16] b [16, 8], with a and b row-major in shared memory.
template <typename T>
__global__ void multiply_tile(float* out, const T* a, const T* b) {
  PC_SHARED(T[16 * 16], a_tile);
  PC_SHARED(T[16 * 8], b_tile);
  const unsigned lane = lane_index();
  for (unsigned i = lane; i < 256; i += 32) a_tile[i] = a[i];
  for (unsigned i = lane; i < 128; i += 32) b_tile[i] = b[i];
  __syncwarp();
  uint32_t a_words[4], b_words[2];
  ldmatrix_x4(a_words, a_tile + lane % 16 * 16 + lane / 16 * 8);
  ldmatrix_x2_trans(b_words, b_tile + lane % 16 * 8);
  float d[4] = {};
  mma_m16n8k16<T>(d, a_words, b_words);
  for (unsigned i = 0; i < 4; ++i) out[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

/// out [16, 8] = a [16, 32] b^T for b [8, 32].
__global__ void multiply_bytes(int* out, const int8_t* a, const int8_t* b) {
  const unsigned lane = lane_index(), g = lane / 4, t = lane % 4;
  const auto word = [](const int8_t* p) { return *reinterpret_cast<const uint32_t*>(p); };
  const uint32_t a_words[4] = {word(a + g * 32 + 4 * t), word(a + (g + 8) * 32 + 4 * t), word(a + g * 32 + 4 * t + 16),
                               word(a + (g + 8) * 32 + 4 * t + 16)};
  const uint32_t b_words[2] = {word(b + g * 32 + 4 * t), word(b + g * 32 + 4 * t + 16)};
  int32_t d[4] = {};
  mma_m16n8k32_s8(d, a_words, b_words);
  for (unsigned i = 0; i < 4; ++i) out[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = d[i];
}

__global__ void exponentials(float* out, const float* in) { out[threadIdx.x] = exp2_approx(in[threadIdx.x]); }

__global__ void reads_before_wait(int* out) {
  PC_SHARED(int4[64], tile);
  cp_async16(tile + threadIdx.x, out + threadIdx.x / 4 * 4);
  cp_async_commit();
  const int early = tile[threadIdx.x].x;
  cp_async_wait<0>();
  __syncthreads();
  out[threadIdx.x] = early;
}
__global__ void reads_unwritten(int* out) {
  PC_SHARED(int[64], tile);
  if (threadIdx.x < 63) tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}
__global__ void nothing(int*) {}
#if !defined(__SANITIZE_THREAD__)
__global__ void race_in_shared(int* out) {
  PC_SHARED(int[64], tile);
  tile[threadIdx.x] = 1;
  out[threadIdx.x] = tile[63 - threadIdx.x];
}
#endif

template <typename T>
void check_tile() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<T> a(256), b(128);
  for (T& x : a) x = static_cast<T>(normal(random));
  for (T& x : b) x = static_cast<T>(normal(random));
  DeviceArray<T> device_a(a), device_b(b);
  DeviceArray<float> out(128);
  PC_LAUNCH(multiply_tile<T>, dim3(1), dim3(32), 0, nullptr, out.data(), device_a.data(), device_b.data());
  finish();
  const std::vector<float> got = out.download();
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      double want = 0;
      for (int k = 0; k < 16; ++k) {
        want += static_cast<double>(static_cast<float>(a[row * 16 + k])) * static_cast<float>(b[k * 8 + column]);
      }
      CHECK(got[row * 8 + column] == doctest::Approx(want).epsilon(1e-6));  // two sums cut to f32
    }
  }
}

}  // namespace

TEST_CASE("blocks reduce through shuffles and shared memory") {
  std::vector<int> in(5 * 256);
  std::iota(in.begin(), in.end(), 3);
  DeviceArray<int> device_in(in), out(5);
  PC_LAUNCH(sum_of_block, dim3(5), dim3(256), 0, nullptr, out.data(), device_in.data());
  finish();
  const std::vector<int> sums = out.download();
  for (int b = 0; b < 5; ++b) CHECK(sums[b] == std::accumulate(in.begin() + b * 256, in.begin() + (b + 1) * 256, 0));
}

TEST_CASE("votes, reductions and shuffles follow the CUDA guide") {
  DeviceArray<unsigned> out(32 * 8);
  PC_LAUNCH(warp_functions, dim3(1), dim3(32), 0, nullptr, out.data());
  finish();
  const std::vector<unsigned> got = out.download();
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned* mine = &got[lane * 8];
    unsigned same = 0;
    for (unsigned other = 0; other < 32; ++other) same |= unsigned{other / 5 == lane / 5} << other;
    CHECK(mine[0] == 0x49249249u);
    CHECK(mine[1] == 496);
    CHECK(mine[2] == static_cast<unsigned>(-7));
    CHECK(mine[3] == same);
    CHECK(mine[4] == (lane ^ 5));
    CHECK(mine[5] == (lane % 8 < 3 ? lane : lane - 3));
    CHECK(mine[6] == 1);
    CHECK(mine[7] == (lane < 16 ? 15 : 31));
  }
}

TEST_CASE("barriers that count") {
  DeviceArray<int> out(3);
  PC_LAUNCH(counts, dim3(1), dim3(64), 0, nullptr, out.data());
  finish();
  CHECK(out.download() == std::vector<int>{32, 1, 1});
}

TEST_CASE("the last block sees what the others wrote before their fence") {
  DeviceArray<float> total(1), parts(50);
  DeviceArray<unsigned> finished(std::vector<unsigned>{0});
  PC_LAUNCH(last_block_adds, dim3(50), dim3(64), 0, nullptr, total.data(), parts.data(), finished.data());
  finish();
  float want = 0.0f;
  for (int i = 0; i < 50; ++i) want += 1.0f / static_cast<float>(i + 1);
  CHECK(total.download()[0] == want);
}

TEST_CASE("asynchronous copies arrive by their wait, and zeros where nothing is valid") {
  std::vector<float> in(6 * 128);
  std::iota(in.begin(), in.end(), 1.0f);
  DeviceArray<float> device_in(in), out(8 * 128);
  PC_LAUNCH(copy_in_stages, dim3(1), dim3(32), 2 * 128 * sizeof(float), nullptr, out.data(), device_in.data(), 6);
  finish();
  in.resize(8 * 128, 0.0f);
  CHECK(out.download() == in);
}

TEST_CASE("tensor cores multiply tiles as the PTX ISA lays them out") {
  check_tile<__half>();
  check_tile<__nv_bfloat16>();
  std::mt19937 random(2);
  std::vector<int8_t> a(16 * 32), b(8 * 32);
  for (int8_t& x : a) x = static_cast<int8_t>(random());
  for (int8_t& x : b) x = static_cast<int8_t>(random());
  DeviceArray<int8_t> device_a(a), device_b(b);
  DeviceArray<int> out(128);
  PC_LAUNCH(multiply_bytes, dim3(1), dim3(32), 0, nullptr, out.data(), device_a.data(), device_b.data());
  finish();
  const std::vector<int> got = out.download();
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      int want = 0;
      for (int k = 0; k < 32; ++k) want += a[row * 32 + k] * b[column * 32 + k];
      CHECK(got[row * 8 + column] == want);
    }
  }
}

TEST_CASE("the approximate exponential is off by at most two units in the last place, and is off") {
  std::vector<float> in(32);
  for (int i = 0; i < 32; ++i) in[i] = static_cast<float>(i) * 0.37f - 6.0f;
  in[0] = 0.0f;
  in[1] = -INFINITY;
  in[2] = -140.0f;
  DeviceArray<float> device_in(in), out(32);
  PC_LAUNCH(exponentials, dim3(1), dim3(32), 0, nullptr, out.data(), device_in.data());
  finish();
  const std::vector<float> got = out.download();
  CHECK(got[0] == 1.0f);
  CHECK(got[1] == 0.0f);
  CHECK(got[2] == 0.0f);
  int off = 0;
  for (int i = 3; i < 32; ++i) {
    CHECK(got[i] == doctest::Approx(std::exp2(static_cast<double>(in[i]))).epsilon(3 * 0x1p-23));
    off += got[i] != std::exp2(in[i]);
  }
  CHECK(off > 10);
}

TEST_CASE("half-precision fma rounds once") {
  // 1 + 2^-11 + 2^-24 rounds up in f16 only if the product's last bit survives.
  const __half tie = __float2half_rn(0x1p-11f), tiny = __float2half_rn(0x1p-12f);
  CHECK(__half2float(__hfma(tiny, tiny, __float2half_rn(1.0f))) == 1.0f);
  CHECK(__half2float(__hfma(tie, __float2half_rn(1.0f + 0x1p-10f), __float2half_rn(1.0f))) == 1.0f + 0x1p-10f);
  CHECK(__half2float(__hfma(tie, __float2half_rn(1.0f), __float2half_rn(1.0f))) == 1.0f);
}

TEST_CASE("memory that holds nothing yet is NaN and a large number by turns") {
  constexpr int kNan = -1, kLarge = 0x7f7f7f7f;
  int seen[2] = {};
  const DeviceArray<int> out(std::vector<int>(64, 7));
  const auto read = [&](void (*kernel)(int*), int at) {
    CUDA_EMU_LAUNCH(kernel, dim3(1), dim3(64), 0, nullptr, out.data());
    finish();
    const int value = out.download()[static_cast<std::size_t>(at)];
    CHECK((value == kNan || value == kLarge));
    ++seen[value == kLarge];
  };
  // This launch poisons one place.
  for (int i = 0; i < 2; ++i) read(reads_unwritten, 63);
  CHECK(seen[0] == 1);
  CHECK(seen[1] == 1);
  for (int i = 0; i < 2; ++i) read(reads_before_wait, 63);
  const DeviceArray<unsigned char> one(7), other(7);
  CHECK(one.download() != other.download());
}

// rule: cuda.sm80-instructions
TEST_CASE("launches outside the limits are refused") {
  DeviceArray<int> out(64);
  const auto refused = [&](dim3 grid, dim3 block, std::size_t shared) {
    PC_LAUNCH(nothing, grid, block, shared, nullptr, out.data());
    return cudaGetLastError() == cudaErrorInvalidConfiguration;
  };
  CHECK(refused(dim3(1), dim3(1025), 0));
  CHECK(refused(dim3(1), dim3(1, 1, 65), 0));
  CHECK(refused(dim3(1, 65536), dim3(32), 0));
  CHECK(refused(dim3(1, 1, 65536), dim3(32), 0));
  CHECK(refused(dim3(0), dim3(32), 0));
  CHECK(refused(dim3(1), dim3(0), 0));
  CHECK(refused(dim3(1), dim3(32), 49153));
  CHECK_FALSE(refused(dim3(1), dim3(32), 49152));
  CHECK(cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, kMaxSharedBytes + 1) ==
        cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, kMaxSharedBytes) == cudaSuccess);
  CHECK_FALSE(refused(dim3(1), dim3(32), kMaxSharedBytes));
  finish();
}

#if !defined(__SANITIZE_THREAD__)  // which tells of the race itself, and ends the program
// rule: cuda.order-is-explicit
TEST_CASE("races show as wrong values in one of two orders") {
  DeviceArray<int> out(64);
  cuda_emu::Options& how = cuda_emu::options();
  const cuda_emu::Order before = how.order;
  int wrong = 0;
  for (const cuda_emu::Order order : {cuda_emu::Order::ascending, cuda_emu::Order::descending}) {
    how.order = order;
    PC_LAUNCH(race_in_shared, dim3(1), dim3(64), 0, nullptr, out.data());
    finish();
    wrong += out.download() != std::vector<int>(64, 1);
  }
  how.order = before;
  CHECK(wrong > 0);
}
#endif
