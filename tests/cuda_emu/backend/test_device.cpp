// What a machine may lack, and how a device fails: each a clear error, and nothing left behind.
#include "harness.hpp"

using namespace cuda_test;
using cuda_emu::machine;

TEST_CASE("no driver, no device, an old one, an index out of range") {
  const MachineScope scope;
  machine().driver = cudaErrorInsufficientDriver;
  CHECK_THROWS_WITH_AS(make(), doctest::Contains("no NVIDIA driver, or one older than CUDA 13"), Unsupported);
  machine().driver = cudaErrorNoDevice;
  CHECK_THROWS_WITH_AS(make(), doctest::Contains("this machine has no NVIDIA GPU"), Unsupported);
  machine().driver = cudaSuccess;
  CudaOptions options = small();
  options.device = 3;
  CHECK_THROWS_WITH_AS(make(options), doctest::Contains("cuda:3: this machine has 1 NVIDIA GPU(s)"), InvalidArgument);
  machine().compute_capability = 7;
  CHECK_THROWS_WITH_AS(make(), doctest::Contains("compute capability 7.0"), Unsupported);
  machine().compute_capability = 8;
  CHECK(make()->describe() == "cuda, emulated GPU, bf16, 1 host threads");
}

TEST_CASE("options out of range") {
  CudaOptions options = small();
  options.dtype = DType::f32;
  CHECK_THROWS_WITH_AS(make(options), doctest::Contains("bf16 or f16, not in f32"), InvalidArgument);
  options = small();
  options.threads = -1;
  CHECK_THROWS_AS(make(options), InvalidArgument);
  options = small();
  options.workspace_bytes = 10;
  CHECK_THROWS_WITH_AS(make(options), doctest::Contains("workspace_bytes = 10"), InvalidArgument);
}

TEST_CASE("too little memory is refused with the arithmetic, before anything is allocated") {
  const MachineScope scope;
  machine().device_bytes = 10 << 20;
  const auto backend = make();
  CHECK(backend->available_memory() == (6 << 20));
  CHECK_THROWS_WITH_AS(
      backend->reserve(7 << 20),
      doctest::Contains("7340032 bytes + a workspace of 4194304 bytes = 11534336, but emulated GPU has "
                        "10485760 bytes free"),
      OutOfMemory);
  CHECK(cuda_emu::device_bytes_in_use() == 0);
  backend->reserve(6 << 20);
  CHECK(cuda_emu::device_bytes_in_use() == 10 << 20);
  const auto buffer = backend->allocate(9 << 20);
  CHECK_THROWS_WITH_AS(backend->allocate(2 << 20), doctest::Contains("of which 9437184 are in use"), OutOfMemory);
  const auto another = backend->allocate(1 << 20);  // an error has changed nothing
  CHECK_THROWS_AS(backend->reserve(1), InvalidArgument);
}

TEST_CASE("allocations that fail half way leave nothing behind") {
  const MachineScope scope;
  machine().pinned_bytes = 1000;
  CHECK_THROWS_WITH_AS(make(), doctest::Contains("pinned host memory of 8388608 bytes"), OutOfMemory);
  machine().pinned_bytes = std::size_t{1} << 30;
  machine().device_bytes = 3 << 20;
  {
    const auto backend = make();
    const auto first = backend->allocate(2 << 20);
    CHECK_THROWS_WITH_AS(backend->allocate(2 << 20), doctest::Contains("of device memory cannot be had"), OutOfMemory);
    const auto second = backend->allocate(100);  // the rest of what is there
  }
  CHECK(cuda_emu::device_bytes_in_use() == 0);
}

TEST_CASE("an asynchronous error stops this backend, with its text, and no other") {
  const MachineScope scope;
  const auto broken = make();
  const auto buffer = broken->allocate(64);
  machine().kernels = cudaErrorIllegalAddress;
  CHECK_THROWS_WITH_AS(broken->synchronize(), doctest::Contains("an illegal memory access was encountered"), Aborted);
  machine().kernels = cudaSuccess;
  CHECK_THROWS_WITH_AS(broken->synchronize(),
                       doctest::Contains("stopped: waiting for the device failed on device cuda:0: "
                                         "cudaErrorIllegalAddress"),
                       Aborted);
  CHECK_THROWS_AS(broken->allocate(64), Aborted);
  const auto other = make();
  const Matrix m(*other, DType::f32, 1, 2, {1.0f, 2.0f});
  CHECK(m.values() == std::vector<float>{1.0f, 2.0f});
}
