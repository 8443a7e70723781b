// What a machine may lack, and how a device fails: each a clear error, and nothing left behind.
#include <thread>

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
  CHECK(good.devices[0].compilation.empty());
  machine().compute_capability = 11;  // a card of which nothing is known, but that PTX for 9.0 can be compiled for it
  CHECK(status().devices[0].matmul_rate == 0.0);
  CHECK(status().devices[0].problem.empty());
  CHECK(status().devices[0].compilation.find("no machine code for compute capability 11.0") != std::string::npos);
  CHECK(status().devices[0].compilation.find("-DPAGEDCORE_CUDA_ARCHITECTURES=110-real or all") != std::string::npos);
}

TEST_CASE("which code a GPU runs: machine code of its own generation, else PTX, which is compiled first") {
  using pagedcore::cuda::Code;
  using pagedcore::cuda::code_for;
  const char* all = "80-real,86-real,89-real,90-real,100-real,120";
  for (const auto& [major, minor] : {std::pair{8, 0}, {8, 6}, {8, 9}, {9, 0}, {10, 0}, {10, 3}, {12, 0}, {12, 1}})
    CHECK(code_for(major, minor, all) == Code::machine);
  CHECK(code_for(13, 0, all) == Code::ptx);
  CHECK(code_for(11, 0, all) == Code::none);  // its PTX is for 12.0 and newer
  CHECK(code_for(7, 5, all) == Code::none);
  CHECK(code_for(8, 6, "80") == Code::machine);  // as good, if not as fast
  CHECK(code_for(9, 0, "80") == Code::ptx);
  CHECK(code_for(9, 0, "80-real") == Code::none);
  CHECK(code_for(8, 0, "86") == Code::none);
  CHECK(code_for(9, 0, "90-virtual") == Code::ptx);
  CHECK(code_for(10, 0, "90-real,100-virtual") == Code::ptx);
}

// rule: cuda.reserve-or-refuse
TEST_CASE("memory is counted once every kernel is loaded, and no launch loads one") {
  const MachineScope scope;
  cuda_emu::unload_kernels();
  machine().kernel_bytes = 100'000;
  const auto launches = cuda_emu::launches_of_unloaded_kernels();
  CudaOptions options = small();
  const auto backend = make(options);
  const std::size_t code = cuda_emu::code_bytes_in_use(), all = machine().device_bytes;
  CHECK(code >= 100 * machine().kernel_bytes);
  // 0.9 of what is free, less the workspace.
  const auto usable = static_cast<std::size_t>(0.9 * static_cast<double>(all - code)) - options.workspace;
  CHECK(backend->available_memory() == usable);
  options.gpu_memory_utilization = 0.5;
  CHECK(make(options)->available_memory() ==
        static_cast<std::size_t>(0.5 * static_cast<double>(all - code)) - options.workspace);
  options.gpu_memory_utilization = 1.0;  // all but what is left to the driver
  CHECK(make(options)->available_memory() == all - code - options.workspace - (32 << 20));
  options.graph_rows = 0;
  CHECK(make(options)->available_memory() == all - code - options.workspace);
  options.gpu_memory_utilization = 1.5;
  CHECK_THROWS_WITH_AS(make(options),
                       doctest::Contains("gpu_memory_utilization = 1.5 is out of range: it must lie in (0, 1]"),
                       InvalidArgument);

  const Matrix in(*backend, DType::f32, 4, 64, random_values(256, 1)), one(*backend, DType::f32, 1, 64);
  Matrix out(*backend, DType::bf16, 4, 64);
  backend->norm(out.tensor, in.tensor, one.tensor, nullptr, {});
  CHECK(out.values() == std::vector<float>(256, 0.0f));
  CHECK(cuda_emu::launches_of_unloaded_kernels() == launches);
  CHECK(cuda_emu::code_bytes_in_use() == code);
}

TEST_CASE("a backend ends on a thread that works with another device, and leaves it its device") {
  const MachineScope scope;
  machine().devices = 2;
  CudaOptions options = small();
  options.device = 1;
  options.workspace = 1 << 20;
  auto backend = make(options);
  backend->reserve(1 << 20);
  auto kv = backend->allocate_kv({1, 1, 64, 16, DType::bf16}, 2);
  const std::vector<std::byte> block(kv->block_bytes());
  const BlockId id{1};
  const std::byte* src = block.data();
  backend->swap_in(*kv, {&id, 1}, {&src, 1});  // a second stream, events, pinned memory; not waited for
  const std::vector<TokenId> tokens(1);
  const std::vector<TokenRange> ranges{{0, 1, 0, 0}};
  const std::vector<BlockId> tables{BlockId{0}};
  auto batch = backend->prepare({tokens, ranges, tables, 1}, 16);
  auto m = std::make_unique<Matrix>(*backend, DType::f32, 1, 4);
  backend->run_step(*batch, [&] { backend->scale_softcap(m->tensor, 2.0f, 0.0f); });  // a graph
  const auto calls = cuda_emu::calls_on_another_device();
  std::thread([&] {
    int device = -1;
    REQUIRE(cudaGetDevice(&device) == cudaSuccess);
    CHECK(device == 0);
    batch.reset();
    kv.reset();
    m.reset();
    backend.reset();
    REQUIRE(cudaGetDevice(&device) == cudaSuccess);
    CHECK(device == 0);
  }).join();
  CHECK(cuda_emu::calls_on_another_device() == calls);
  CHECK(cuda_emu::device_bytes_in_use() == 0);
  CHECK(cuda_emu::objects_in_use() == 0);
  int device = -1;
  REQUIRE(cudaGetDevice(&device) == cudaSuccess);
  CHECK(device == 1);  // of the thread that drove it
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
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
  machine().device_bytes = (10 + 32) << 20;  // 32 MiB are left to the driver, for graphs
  const auto backend = make();
  CHECK(backend->available_memory() == (6 << 20));
  CHECK_THROWS_WITH_AS(
      backend->reserve(7 << 20),
      doctest::Contains(
          "7340032 bytes + a workspace of 4194304 bytes = 11534336, and 33554432 bytes that the driver takes "
          "for graphs and libraries, but emulated GPU has 44040192 bytes free"),
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
