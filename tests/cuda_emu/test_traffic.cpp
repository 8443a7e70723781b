// The count of bytes moved, on kernels whose count is known by hand. This file is compiled to call the emulator.
#include <doctest/doctest.h>

#include <vector>

#include "device_array.hpp"
#include "emulator/traffic.hpp"
#include "kernels/device.cuh"
#include "kernels/ptx.cuh"

using cuda_test::DeviceArray;
using cuda_test::finish;
using namespace pagedcore::cuda;

namespace {

__global__ void copy_wide(float4* out, const float4* in) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = in[i];
}
__global__ void copy_strided(float* out, const float* in) { out[threadIdx.x] = in[threadIdx.x * 8]; }
__global__ void read_one(float* out, const float* in) { out[threadIdx.x] = __ldg(in); }
__global__ void read_rows(float* out, const float* in, int rows) {
  float sum = 0.0f;
  for (int row = 0; row < rows; ++row) sum += in[row * 32 + threadIdx.x];
  out[threadIdx.x] = sum;
}
__global__ void copy_async_rows(float* out, const float* in) {
  PC_SHARED(float[128], tile);
  cp_async16(tile + threadIdx.x * 4, in + threadIdx.x * 4);
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x];
}

template <typename Run>
cuda_emu::Traffic traffic_of(Run run) {
  cuda_emu::count_traffic();
  run();
  finish();
  return cuda_emu::counted_traffic();
}

}  // namespace

TEST_CASE("sectors are counted once for each instruction of a warp") {
  const DeviceArray<float> in(std::vector<float>(4096, 1.0f)), out(4096);
  cuda_emu::Traffic t = traffic_of([&] {
    PC_LAUNCH(copy_wide, dim3(4), dim3(64), 0, nullptr, reinterpret_cast<float4*>(out.data()),
              reinterpret_cast<const float4*>(in.data()));
  });
  CHECK(t.read_bytes == 4096);
  CHECK(t.written_bytes == 4096);
  CHECK(t.requests == 16);
  t = traffic_of([&] { PC_LAUNCH(copy_strided, dim3(1), dim3(64), 0, nullptr, out.data(), in.data()); });
  CHECK(t.read_bytes == 64 * 32);  // a sector for each float
  CHECK(t.written_bytes == 256);
  t = traffic_of([&] { PC_LAUNCH(read_one, dim3(3), dim3(64), 0, nullptr, out.data(), in.data()); });
  CHECK(t.read_bytes == 3 * 2 * 32);
  t = traffic_of([&] { PC_LAUNCH(read_rows, dim3(1), dim3(32), 0, nullptr, out.data(), in.data(), 9); });
  CHECK(t.read_bytes == 9 * 128);
  t = traffic_of([&] { PC_LAUNCH(copy_async_rows, dim3(1), dim3(32), 0, nullptr, out.data(), in.data()); });
  CHECK(t.read_bytes == 512);
  CHECK(t.written_bytes == 128);
}
