// `pagedcore selftest --device cuda` on the emulated device: it passes, and a broken operation is named.
#include "check.hpp"
#include "harness.hpp"

using namespace faulty;

namespace {

std::unique_ptr<Backend> reference() { return make_cpu_backend({1, DType::f32, "auto"}); }

std::unique_ptr<Backend> device(DType dtype) {
  CudaOptions options = cuda_test::small();
  options.dtype = dtype;
  return cuda_test::make(options);
}

}  // namespace

TEST_CASE("the device passes in both of its types; it leaves out what its kernels have not, and nothing else") {
  const auto cpu = reference();
  for (const DType dtype : {DType::bf16, DType::f16}) {
    CAPTURE(info(dtype).name);
    const auto cuda = device(dtype);
    const auto graphs = cuda_emu::graph_counters().launches;
    const auto checks = selftest_checks(*cuda, *cpu, true);
    CHECK(cuda_emu::graph_counters().launches - graphs == 5);  // the steps of run_step's check: none ran one by one
    require_all_passed(checks);
    require_all_operations(checks);
    for (const SelftestCheck& c : checks) {
      CAPTURE(c.what);
      CHECK(c.outcome == (has_no_kernel(c) ? SelftestOutcome::unsupported : SelftestOutcome::passed));
      CHECK(c.note == "");  // no task is left to the host
    }
  }
  CHECK(cuda_emu::device_bytes_in_use() == 0);
}

TEST_CASE("a fault in a kernel's result is found, and the operation named") {
  const auto cpu = reference(), cuda = device(DType::f16);
  for (const Fault fault : {Fault::attention, Fault::step_stale, Fault::sampled_token, Fault::sampled_none}) {
    for (const Expectation& expected : kExpectations) {
      if (expected.fault == fault) require_flagged(*cuda, *cpu, expected);
    }
  }
}

TEST_CASE("a kernel that ends with an error fails the checks with its text, and the process goes on") {
  const cuda_test::MachineScope scope;
  const auto cpu = reference(), cuda = device(DType::bf16);
  cuda_emu::machine().kernels = cudaErrorIllegalAddress;
  const auto checks = selftest_checks(*cuda, *cpu, true);
  int failed = 0;
  for (const SelftestCheck& c : checks) {
    if (c.outcome != SelftestOutcome::failed) continue;
    ++failed;
    CAPTURE(c.operation);
    CHECK(c.problem.find("cudaErrorIllegalAddress: an illegal memory access was encountered") != std::string::npos);
  }
  CHECK(failed >= static_cast<int>(checks.size()) - 1);  // host threads still work
}
