// Names of devices, and a CUDA plugin that is missing, broken or of another kind.
#include <doctest/doctest.h>

#include <cstdio>
#include <fstream>

#include "backend/cuda_plugin.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/devices.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/version.hpp"

using namespace pagedcore;

TEST_CASE("names of devices") {
  CHECK(parse_device("cpu").kind == DeviceKind::cpu);
  CHECK(parse_device("cuda").kind == DeviceKind::cuda);
  CHECK(parse_device("cuda").index == 0);
  CHECK(parse_device("cuda:12").index == 12);
  for (const char* bad : {"", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:1x", "cuda:99999", "cpu:0"}) {
    CHECK_THROWS_WITH_AS(parse_device(bad), doctest::Contains("use cpu, cuda or cuda:<index>"), InvalidArgument);
  }
}

// rule: backend.plugin-of-one-version
TEST_CASE("without the plugin, the CUDA backend says so") {
  CHECK_THROWS_WITH_AS(make_cuda_backend({}), doctest::Contains("the CUDA backend is not available"), Unsupported);
  CHECK_THROWS_WITH_AS(make_cuda_backend({}), doctest::Contains("libpagedcore_cuda.so"), Unsupported);
  CudaOptions options;
  options.plugin = "test_device_no_library.so";
  std::ofstream(options.plugin) << "not a shared object";
  CHECK_THROWS_WITH_AS(make_cuda_backend(options), doctest::Contains("use device cpu"), Unsupported);
  std::remove(options.plugin.c_str());
  options.plugin = "libm.so.6";  // a library, but no plugin
  CHECK_THROWS_WITH_AS(make_cuda_backend(options), doctest::Contains("has no pagedcore_cuda_plugin_v2"), Unsupported);
}

// rule: backend.plugin-of-one-version
TEST_CASE("a plugin of another version is refused, by its number or by its table") {
  CudaOptions options;
  options.plugin = PLUGIN_OTHER_VERSION;
  CHECK_THROWS_WITH_AS(make_cuda_backend(options), doctest::Contains("is of pagedcore 0.0.7; this is"), Unsupported);
  CHECK_THROWS_WITH_AS(make_cuda_backend(options), doctest::Contains("install both from one build"), Unsupported);
  options.plugin = PLUGIN_OLD_ENTRY;
  CHECK_THROWS_WITH_AS(make_cuda_backend(options), doctest::Contains("belongs to another version"), Unsupported);
}

TEST_CASE("the status says what is missing, and throws nothing") {
  CudaStatus status = cuda_status();
  CHECK(status.plugin.ends_with("/libpagedcore_cuda.so"));
  CHECK(status.plugin_version.empty());
  CHECK(status.devices.empty());
  CHECK(status.problem.find("install pagedcore-cuda13 of version " PAGEDCORE_VERSION
                            " (README, CUDA), or use device cpu") != std::string::npos);
  status = cuda_status(PLUGIN_OTHER_VERSION);
  CHECK(status.plugin == PLUGIN_OTHER_VERSION);
  CHECK(status.plugin_version.empty());
  CHECK(status.problem.find("0.0.7") != std::string::npos);
}
