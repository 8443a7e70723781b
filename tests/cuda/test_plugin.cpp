// The plugin as nvcc built it, opened by the shared library that it lies beside.
#include <dlfcn.h>
#include <doctest/doctest.h>

#include "pagedcore/backend.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;

TEST_CASE("without a driver the plugin loads, and says what is missing") {
  if (dlopen("libcuda.so.1", RTLD_LAZY) != nullptr) {
    MESSAGE("this machine has a driver: nothing to see");
    return;
  }
  for (int i = 0; i < 2; ++i) {  // and again, once it is open
    CHECK_THROWS_WITH_AS(make_cuda_backend({}),
                         doctest::Contains("the CUDA backend is not available: this machine has no NVIDIA driver"),
                         Unsupported);
    CHECK_THROWS_WITH_AS(make_cuda_backend({}), doctest::Contains("use device cpu"), Unsupported);
  }
}
