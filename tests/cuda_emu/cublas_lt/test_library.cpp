// Finding the library: by its name, by the environment, or not at all; what is wrong with it is said before anything is
// allocated.
#include <unistd.h>

#include <filesystem>

#include "fake.hpp"
#include "harness.hpp"

using namespace cuda_test;
using cuda_emu::machine;

namespace {

const cuda_emu::Hooks kRuntime;

CudaOptions with_library() {
  CudaOptions options = small();
  options.cublas_lt = true;
  return options;
}

/// Makes a backend on a machine that has no memory to give.
void make_without_memory() {
  const MachineScope scope;
  machine().device_bytes = machine().pinned_bytes = 0;
  make(with_library());
}

bool is_open(const char* library) {
  void* found = dlopen(library, RTLD_NOLOAD | RTLD_NOW);
  if (found != nullptr) dlclose(found);
  return found != nullptr;
}

}  // namespace

// rule: cuda.cublas-lt-only-when-asked
TEST_CASE("the library is opened with the option only") {
  const FakeScope fake(FAKE_CUBLAS_LT, &kRuntime);
  // A copy, which no other case has opened.
  const auto copy = std::filesystem::temp_directory_path() / ("libcublasLt." + std::to_string(getpid()) + ".so");
  std::filesystem::copy_file(FAKE_CUBLAS_LT, copy, std::filesystem::copy_options::overwrite_existing);
  setenv("PAGEDCORE_CUBLASLT", copy.c_str(), 1);
  CHECK(make()->describe() == "cuda, emulated GPU, bf16, 1 host threads");
  CHECK_FALSE(is_open(copy.c_str()));
  CHECK(make(with_library())->describe() == "cuda, emulated GPU, bf16, cuBLASLt 13.1.0, 1 host threads");
  CHECK(is_open(copy.c_str()));
  std::filesystem::remove(copy);
}

TEST_CASE("the library is found by its name") {
  unsetenv("PAGEDCORE_CUBLASLT");
  make(with_library());
  CHECK(is_open(FAKE_CUBLAS_LT));
}

TEST_CASE("a library that is not there, lacks a function, is too old or refuses") {
  const FakeScope fake(FAKE_CUBLAS_LT, &kRuntime);
  setenv("PAGEDCORE_CUBLASLT", "/nowhere/libcublasLt.so.13", 1);
  CHECK_THROWS_WITH_AS(make_without_memory(),
                       doctest::Contains("cuBLASLt cannot be opened (/nowhere/libcublasLt.so.13: cannot open shared "
                                         "object file: No such file or directory); install it"),
                       Unsupported);
  CHECK_THROWS_WITH_AS(make_without_memory(),
                       doctest::Contains("pip install nvidia-cublas for CUDA 13, nvidia-cublas-cu12 for 12) and name "
                                         "its folder in LD_LIBRARY_PATH or its path in PAGEDCORE_CUBLASLT, or leave "
                                         "cublas_lt off"),
                       Unsupported);
  make();  // without the option it does not matter
  setenv("PAGEDCORE_CUBLASLT", FAKE_CUBLAS_LT_INCOMPLETE, 1);
  CHECK_THROWS_WITH_AS(make_without_memory(), doctest::Contains("libcublasLt.so.13 has no function cublasLtMatmul;"),
                       Unsupported);
  setenv("PAGEDCORE_CUBLASLT", FAKE_CUBLAS_LT, 1);
  fake->version = 110503;
  CHECK_THROWS_WITH_AS(make_without_memory(), doctest::Contains("is cuBLASLt 11.5.3, older than 12.0.0"), Unsupported);
  fake->version = 120000;
  fake->create = 1;
  CHECK_THROWS_WITH_AS(make_without_memory(),
                       doctest::Contains("cuBLASLt 12.0.0 cannot be used on emulated GPU: cublasLtCreate: "
                                         "CUBLAS_STATUS_NOT_INITIALIZED; use a version that fits"),
                       Unsupported);
  fake->create = 3;
  CHECK_THROWS_WITH_AS(make_without_memory(), doctest::Contains("CUBLAS_STATUS_ALLOC_FAILED"), OutOfMemory);
  fake->create = 0;
  make(with_library());
  CHECK(cuda_emu::objects_in_use() == 0);
}

// rule: cuda.cublas-lt-only-when-asked
TEST_CASE("its memory is part of the arithmetic, and taken before anything else is") {
  const MachineScope scope;
  const FakeScope fake(FAKE_CUBLAS_LT, &kRuntime);
  machine().device_bytes = (16 + 96) << 20;  // 96 MiB are left to the driver, for graphs and the library's kernels
  {
    const auto backend = make(with_library());  // 4 MiB of workspace, and 2 + 2 of them again
    CHECK(backend->available_memory() == (8 << 20));
    CHECK_THROWS_WITH_AS(
        backend->reserve(9 << 20),
        doctest::Contains("9437184 bytes + a workspace of 8388608 bytes = 17825792, and 100663296 bytes that the "
                          "driver takes for graphs and libraries, but emulated GPU has 117440512 bytes free"),
        OutOfMemory);
    CHECK(cuda_emu::device_bytes_in_use() == 0);
    backend->reserve(8 << 20);
    const auto planned = backend->allocate(8 << 20), workspace = backend->allocate(4 << 20);
    CHECK_THROWS_AS(backend->allocate(1), OutOfMemory);  // the rest is taken
  }
  CHECK(cuda_emu::device_bytes_in_use() == 0);
  CudaOptions options = with_library();
  options.workspace = 128 << 20;
  machine().device_bytes = 400 << 20;
  // What is left beside the driver's is less than nine tenths.
  CHECK(make(options)->available_memory() == ((400 - 96 - 128 - 64 - 32) << 20));
}
