// Each kernel here breaks one rule of CUDA. The emulator, or the sanitizer that the build has, must say so.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "device_array.hpp"
#include "emulator/options.hpp"
#include "kernels/device.cuh"
#include "kernels/ptx.cuh"

using cuda_test::DeviceArray;
using cuda_test::finish;
using namespace pagedcore::cuda;

#if defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_options() { return "atexit_sleep_ms=0"; }  // there are many children
#endif

namespace {

// This process itself runs no kernel: ThreadSanitizer sees nothing in the child of a process that has had threads.
#if defined(__SANITIZE_THREAD__)
constexpr bool kTsan = true, kAsan = false;
#elif defined(__SANITIZE_ADDRESS__)
constexpr bool kTsan = false, kAsan = true;
#else
constexpr bool kTsan = false, kAsan = false;
#endif

/// What a child process that ran `body` wrote to stderr; empty where it ended well.
template <typename Body>
std::string complaint_of(Body body) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  std::fflush(nullptr);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    body();
    std::exit(0);  // ThreadSanitizer turns a report into an exit status here
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  const bool ended_well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (ended_well)
    text.clear();
  else if (text.empty())
    text = "ended without a word, status " + std::to_string(status);
  return text;
}

/// Runs the kernel with blocks of 64 threads on an array of 64 zeros.
std::string complaint_of(void (*kernel)(int*), unsigned blocks = 1, std::size_t shared_bytes = 0) {
  return complaint_of([=] {
    DeviceArray<int> array(std::vector<int>(64, 0));
    CUDA_EMU_LAUNCH(kernel, dim3(blocks), dim3(64), shared_bytes, nullptr, array.data());
    finish();
  });
}

#define CHECK_COMPLAINT(text, complaint)        \
  do {                                          \
    const std::string got = (complaint);        \
    CAPTURE(got);                               \
    CHECK(got.find(text) != std::string::npos); \
  } while (false)

__global__ void divergent_barrier(int* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    out[threadIdx.x] = 1;
    __syncthreads();
  }
}
__global__ void barrier_after_exit(int* out) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void endless_wait(int*) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else if (threadIdx.x % 2 == 0) {
    __syncwarp();
  } else {
    __syncwarp(0xaaaaaaaau | 1u << 0);
  }
}
__global__ void lane_outside_its_mask(int* out) {
  if (threadIdx.x % 2 == 1) out[threadIdx.x] = __shfl_xor_sync(0x55555555u, 1, 2);
}
__global__ void exited_lane_in_mask(int* out) {
  if (threadIdx.x >= 20) return;
  out[threadIdx.x] = __shfl_down_sync(kAllLanes, static_cast<int>(threadIdx.x), 1);
}
__global__ void shuffle_from_outside(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1, 16);
}
__global__ void odd_width(int* out) { out[threadIdx.x] = __shfl_sync(kAllLanes, 1, 0, 12); }
__global__ void different_operations(int* out) {
  if (threadIdx.x % 32 < 16) {
    out[threadIdx.x] = __reduce_add_sync(kAllLanes, 1);
  } else {
    out[threadIdx.x] = __any_sync(kAllLanes, 1);
  }
}
__global__ void partial_mma(int*) {
  float d[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  if (threadIdx.x < 16) mma_m16n8k16<__half>(d, a, b);
}
__global__ void misaligned_load(int* out) { out[0] = __ldg(reinterpret_cast<const int4*>(out + 1)).x; }
__global__ void misaligned_copy(int* out) {
  PC_SHARED(int[64], tile);
  cp_async16(tile + 1, out);
  cp_async_commit();
  cp_async_wait<0>();
}
__global__ void under_aligned_row(int*) {
  PC_SHARED(__half[512], tile);
  uint32_t r[4];
  ldmatrix_x4(r, tile + threadIdx.x % 32 * 8 + 4);
}
__global__ void copy_to_global(int* out) { cp_async16(out, out + 16); }
__global__ void exit_with_copies(int* out) {
  PC_SHARED(int4[64], tile);
  cp_async16(tile + threadIdx.x, out + threadIdx.x / 32 * 4);
  cp_async_commit();
}
__global__ void no_dynamic_shared(int* out) {
  PC_DYNAMIC_SHARED(int, scratch);
  out[0] = scratch[0];
}
__global__ void too_much_static(int* out) {
  PC_SHARED(int[12 * 1024 + 1], scratch);
  out[0] = scratch[0];
}

__global__ void race_in_shared(int* out) {
  PC_SHARED(int[64], tile);
  tile[threadIdx.x] = 1;
  out[threadIdx.x] = tile[63 - threadIdx.x];
}
__global__ void shuffle_is_no_fence(int* out) {
  PC_SHARED(int[64], tile);
  tile[threadIdx.x] = 1;
  __shfl_sync(kAllLanes, 0, 0);
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}
__global__ void copy_without_barrier(int* out) {
  PC_SHARED(int4[64], tile);
  cp_async16(tile + threadIdx.x, out + threadIdx.x / 4 * 4);
  cp_async_commit();
  cp_async_wait<0>();
  out[threadIdx.x] = tile[threadIdx.x ^ 1].x;
}
__global__ void blocks_write_one_address(int* out) {
  if (threadIdx.x == 0) out[0] = static_cast<int>(blockIdx.x);
}
__global__ void block_races_after_barrier(int* out) {
  if (threadIdx.x == 0) out[0] = 1;
  __syncthreads();
  if (threadIdx.x == 1 && blockIdx.x == 1) out[1] = out[0];
}
__global__ void no_fence(int* out) {
  if (threadIdx.x > 0) return;
  out[1 + blockIdx.x] = 1;
  if (atomicAdd(out, 1) != static_cast<int>(gridDim.x) - 1) return;
  for (unsigned i = 1; i <= gridDim.x; ++i) out[40] += out[i];  // the last block reads what all have written
}
__global__ void same_lanes_twice(int* out) {  // ordered: no complaint
  PC_SHARED(int[64], tile);
  tile[threadIdx.x] = 1;
  __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
  __syncwarp();
  tile[threadIdx.x ^ 1] = 2;
}
__global__ void atomics_are_no_race(int* out) { atomicAdd(out, 1); }

__global__ void beyond_shared(int* out) {
  PC_SHARED(int[64], tile);
  int* const place = tile;  // UndefinedBehaviorSanitizer knows the array's end
  place[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}
__global__ void beyond_dynamic_shared(int* out) {
  PC_DYNAMIC_SHARED(int, tile);
  tile[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}
__global__ void beyond_global(int* out) { out[threadIdx.x + 1] = 1; }
__global__ void misaligned_vector(int* out) { *reinterpret_cast<int4*>(out + threadIdx.x / 32 + 1) = int4{}; }

}  // namespace

// rule: cuda.whole-warps
TEST_CASE("barriers") {
  CHECK_COMPLAINT("divergent barrier", complaint_of(divergent_barrier));
  const std::string exited = complaint_of(barrier_after_exit);
  CAPTURE(exited);
  const bool told = exited.find("after one of its threads has exited") != std::string::npos ||
                    exited.find("exits while others wait") != std::string::npos;
  CHECK(told);
  CHECK_COMPLAINT("test_misuse.cpp", exited);
  CHECK_COMPLAINT("deadlock", complaint_of(endless_wait));
  CHECK_COMPLAINT("waiting in __syncthreads at", complaint_of(endless_wait));
}

// rule: cuda.whole-warps
TEST_CASE("masks and lanes") {
  CHECK_COMPLAINT("the calling lane is not in its mask", complaint_of(lane_outside_its_mask));
  CHECK_COMPLAINT("a lane in its mask that has exited", complaint_of(exited_lane_in_mask));
  CHECK_COMPLAINT("which is not in the mask", complaint_of(shuffle_from_outside));
  CHECK_COMPLAINT("width 12", complaint_of(odd_width));
  CHECK_COMPLAINT("other lanes of the mask wait in", complaint_of(different_operations));
  CHECK_COMPLAINT("", complaint_of(partial_mma));
}

TEST_CASE("addresses") {
  CHECK_COMPLAINT("not aligned to its size", complaint_of(misaligned_load));
  CHECK_COMPLAINT("cp.async: not aligned", complaint_of(misaligned_copy));
  CHECK_COMPLAINT("a row is not aligned to 16 bytes", complaint_of(under_aligned_row));
  CHECK_COMPLAINT("to an address that is not shared memory", complaint_of(copy_to_global));
  CHECK_COMPLAINT("did not wait for", complaint_of(exit_with_copies));
  CHECK_COMPLAINT("no dynamic shared memory", complaint_of(no_dynamic_shared));
  CHECK_COMPLAINT("48 KiB of static shared memory", complaint_of(too_much_static));
}

// Only ThreadSanitizer sees these; in other builds the kernels run through.
// rule: cuda.order-is-explicit
TEST_CASE("races, for ThreadSanitizer" * doctest::skip(!kTsan)) {
  for (const auto kernel : {race_in_shared, shuffle_is_no_fence, copy_without_barrier}) {
    CHECK_COMPLAINT("data race", complaint_of(kernel));
  }
  for (const auto kernel : {blocks_write_one_address, block_races_after_barrier, no_fence}) {
    CHECK_COMPLAINT("data race", complaint_of(kernel, 4));
  }
  CHECK_COMPLAINT("test_misuse.cpp", complaint_of(race_in_shared));
}

TEST_CASE("what is ordered is no race") {
  CHECK(complaint_of(same_lanes_twice, 1) == "");
  CHECK(complaint_of(atomics_are_no_race, 8) == "");
}

// Only AddressSanitizer and UndefinedBehaviorSanitizer see these.
TEST_CASE("accesses outside of what was asked for, for AddressSanitizer" * doctest::skip(!kAsan)) {
  CHECK_COMPLAINT("use-after-poison", complaint_of(beyond_shared));
  CHECK_COMPLAINT("use-after-poison", complaint_of(beyond_dynamic_shared, 1, 64 * sizeof(int)));
  CHECK_COMPLAINT("use-after-poison", complaint_of(beyond_global));
  CHECK_COMPLAINT("misaligned", complaint_of(misaligned_vector));
}

TEST_CASE("the host cannot touch device memory") {
  CHECK(complaint_of([] {
          DeviceArray<int> array(std::vector<int>{1});
          volatile int* p = array.data();
          std::printf("%d\n", *p);
        }) != "");
}
