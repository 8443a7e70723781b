// What a machine may lack, and how a device fails: each a clear error, and nothing left behind.
#include "backend/query.hpp"
#include "harness.hpp"

using namespace cuda_test;
using cuda_emu::machine;

// rule: cuda.missing-is-said
TEST_CASE("no driver, no device, an old one, an index out of range") {
  const MachineScope scope;
  machine().driver = cudaErrorInsufficientDriver;
  machine().driver_version = 0;
  CHECK_THROWS_WITH_AS(make(), doctest::Contains("this machine has no NVIDIA driver, and it needs one for CUDA 13"),
                       Unsupported);
  CHECK_THROWS_WITH_AS(make(), doctest::Contains("install the driver, or use device cpu"), Unsupported);
  machine().driver_version = 12040;
  CHECK_THROWS_WITH_AS(make(), doctest::Contains("the NVIDIA driver serves CUDA 12.4, and it needs one for CUDA 13"),
                       Unsupported);
  CHECK_THROWS_WITH_AS(make(), doctest::Contains("update the driver, or use device cpu"), Unsupported);
  machine().driver = cudaErrorNoDevice;
  CHECK_THROWS_WITH_AS(make(), doctest::Contains("this machine has no NVIDIA GPU"), Unsupported);
  machine().driver = cudaSuccess;
  CudaOptions options = small();
  options.device = 3;
  CHECK_THROWS_WITH_AS(make(options), doctest::Contains("cuda:3: this machine has 1 NVIDIA GPU(s)"), InvalidArgument);
  machine().compute_capability = 7;
  CHECK_THROWS_WITH_AS(make(), doctest::Contains("compute capability 7.0"), Unsupported);
  machine().compute_capability = 9;
  machine().code = cudaErrorNoKernelImageForDevice;
  CHECK_THROWS_WITH_AS(make(), doctest::Contains("of compute capability 9.0: the CUDA backend was built without code"),
                       Unsupported);
  CHECK_THROWS_WITH_AS(make(), doctest::Contains("-DPAGEDCORE_CUDA_ARCHITECTURES=90 or all"), Unsupported);
  machine().code = cudaSuccess;
  machine().compute_capability = 8;
  CHECK(make()->describe() == "cuda, emulated GPU, bf16, 1 host threads");
}

TEST_CASE("a status for people: the same problems without an exception, and what the card can do") {
  const MachineScope scope;
  const auto status = [] {
    CudaStatus found;
    pagedcore::cuda::query(found);
    return found;
  };
  machine().driver = cudaErrorInsufficientDriver;
  machine().driver_version = 0;
  CHECK(status().driver_version == 0);
  CHECK(status().problem.find("this machine has no NVIDIA driver") != std::string::npos);
  machine() = cuda_emu::Machine{};
  machine().devices = 0;
  CHECK(status().driver_version == 13000);
  CHECK(status().problem.find("has no NVIDIA GPU") != std::string::npos);
  machine().devices = 2;
  machine().compute_capability = 7;
  CHECK(status().devices.size() == 2);
  CHECK(status().devices[1].problem.find("cuda:1, emulated GPU, has compute capability 7.0") != std::string::npos);
  CHECK(status().problem == status().devices[0].problem);
  machine() = cuda_emu::Machine{};
  machine().multiprocessors = 108;  // an A100, whose data sheet says 312 TFLOP/s and 1,555 GB/s
  const CudaStatus good = status();
  CHECK(good.problem.empty());
  CHECK(good.runtime_version >= 13000);
  REQUIRE(good.devices.size() == 1);
  CHECK(good.devices[0].name == "emulated GPU");
  CHECK(good.devices[0].compute_major == 8);
  CHECK(good.devices[0].memory == machine().device_bytes);
  CHECK(good.devices[0].matmul_rate == doctest::Approx(312e12).epsilon(0.005));
  CHECK(good.devices[0].memory_rate == doctest::Approx(1555e9).epsilon(0.005));
  machine().compute_capability = 11;  // a card of which nothing is known
  CHECK(status().devices[0].matmul_rate == 0.0);
}

TEST_CASE("options out of range") {
  CudaOptions options = small();
  options.dtype = DType::f32;
  CHECK_THROWS_WITH_AS(make(options), doctest::Contains("bf16 or f16, not in f32"), InvalidArgument);
  options = small();
  options.threads = -1;
  CHECK_THROWS_AS(make(options), InvalidArgument);
  options = small();
  options.workspace = 10;
  CHECK_THROWS_WITH_AS(make(options), doctest::Contains("workspace = 10"), InvalidArgument);
}

// rule: cuda.reserve-or-refuse
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
  CHECK_THROWS_WITH_AS(make(), doctest::Contains("8388608 bytes of pinned host memory"), OutOfMemory);
  machine().pinned_bytes = std::size_t{1} << 30;
  machine().device_bytes = 3 << 20;
  {
    const auto backend = make();
    const auto first = backend->allocate(2 << 20);
    CHECK_THROWS_WITH_AS(backend->allocate(2 << 20), doctest::Contains("bytes of device memory; "), OutOfMemory);
    const auto second = backend->allocate(100);  // the rest of what is there
  }
  CHECK(cuda_emu::device_bytes_in_use() == 0);
}

TEST_CASE("any allocation may fail: OutOfMemory, and nothing is left behind") {
  const MachineScope scope;
  int failures = 0;
  for (bool done = false; !done; ++failures) {
    CAPTURE(failures);
    machine().allocations_left = failures;
    try {
      const auto backend = make();
      backend->reserve(1 << 20);
      const Matrix m(*backend, DType::f32, 2, 8, random_values(16, 1));
      const std::vector<TokenId> tokens(3);
      const std::vector<TokenRange> ranges{{0, 3, 0, 0}};
      const std::vector<BlockId> tables{BlockId{0}};
      const auto batch = backend->prepare({tokens, ranges, tables, 1}, 16);
      const auto kv = backend->allocate_kv({1, 1, 64, 16, DType::bf16}, 2);
      const std::vector<std::byte> block(kv->block_bytes());
      const std::vector<BlockId> ids{BlockId{1}, BlockId{0}};
      backend->swap_in(*kv, ids, std::vector<const std::byte*>(2, block.data()));
      backend->synchronize();
      done = true;
    } catch (const OutOfMemory&) {
    }
    machine().allocations_left = -1;
    CHECK(cuda_emu::device_bytes_in_use() == 0);
    CHECK(cuda_emu::objects_in_use() == 0);
  }
  CHECK(failures > 5);  // pinned memory, streams, the arena, events
}

// rule: cuda.error-stops-one-backend
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
