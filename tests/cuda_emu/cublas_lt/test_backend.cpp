// The backend with products by (a fake) cuBLASLt: every operation, recorded steps, failures of the library.
#include "check.hpp"
#include "fake.hpp"
#include "harness.hpp"

using namespace cuda_test;
using cuda_emu::graph_counters;

namespace {

const cuda_emu::Hooks kRuntime;

CudaOptions with_library(DType dtype = DType::bf16) {
  CudaOptions options = small();
  options.cublas_lt = true;
  options.dtype = dtype;
  return options;
}

std::unique_ptr<Weight> packed(Backend& backend, const std::vector<float>& values, std::int64_t n, std::int64_t k) {
  const HostTensor host{DType::f32, {n, k}, 2, std::as_bytes(std::span(values))};
  return backend.pack({&host, 1}, PackKind::stacked);
}

/// Rows of a table, multiplied by the same table: as of a model whose embedding is its output matrix.
class Tied {
 public:
  explicit Tied(Backend& backend) : backend_(backend), table_(packed(backend, random_values(50 * 72, 1), 50, 72)) {}

  std::vector<float> run(std::int32_t rows) {
    std::vector<TokenId> tokens;
    std::vector<TokenRange> ranges;
    for (std::int32_t row = 0; row < rows; ++row) {
      tokens.push_back(row * 7 % 50);
      ranges.push_back({row, 1, 0, 0});
    }
    const std::vector<BlockId> tables{BlockId{0}};
    const auto batch = backend_.prepare({tokens, ranges, tables, 1}, 16);
    backend_.run_step(*batch, [&] {
      const Tensor embedded = embedded_.tensor.slice_rows(0, rows), normed = normed_.tensor.slice_rows(0, rows);
      backend_.embed(embedded, *table_, *batch, 1.0f);
      backend_.norm(normed, embedded, one_.tensor, nullptr, {});
      backend_.matmul(logits_.tensor.slice_rows(0, rows), normed, *table_, {});
      backend_.matmul(active_.tensor.slice_rows(0, rows), normed, *table_, {Epilogue::Kind::activated});
    });
    std::vector<float> all = logits_.values();
    for (const float x : active_.values()) all.push_back(x);
    return all;
  }

 private:
  Backend& backend_;
  std::unique_ptr<Weight> table_;
  Matrix embedded_{backend_, DType::f32, 8, 72}, one_{backend_, DType::f32, 1, 72, std::vector<float>(72, 1.0f)},
      normed_{backend_, DType::bf16, 8, 72}, logits_{backend_, DType::f32, 8, 50},
      active_{backend_, DType::bf16, 8, 50};
};

}  // namespace

TEST_CASE("every operation is right, and the bits of a row depend on its batch: the promise that is given up") {
  const FakeScope fake(FAKE_CUBLAS_LT, &kRuntime);
  const auto cpu = make_cpu_backend({1, DType::f32, "auto"});
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const auto cuda = make(with_library(dtype));
    int broken = 0;
    for (const SelftestCheck& c : selftest_checks(*cuda, *cpu, true)) {
      const bool promise = c.operation == "matmul" && c.what == "same bits for a row alone and in a batch";
      CAPTURE(c.operation);
      CAPTURE(c.what);
      CAPTURE(c.problem);
      CHECK(c.outcome == (promise                    ? SelftestOutcome::failed
                          : faulty::has_no_kernel(c) ? SelftestOutcome::unsupported
                                                     : SelftestOutcome::passed));
      broken += promise;
    }
    CHECK(broken == 1);
  }
  CHECK(fake->calls.size() > 20);
}

TEST_CASE("weights are as large as their matrix, whatever its shape") {
  const FakeScope fake(FAKE_CUBLAS_LT, &kRuntime);
  const auto backend = make(with_library());
  CHECK(backend->packed_bytes(19, 37, PackKind::stacked) == 2 * 19 * 37);
  CHECK(backend->packed_bytes(19, 37, PackKind::gated) == 2 * 2 * 19 * 37);
  CHECK(packed(*backend, random_values(19 * 37, 1), 19, 37)->bytes() == 2 * 19 * 37);
}

TEST_CASE("steps as graphs, whose number of kernels differs with the shape, and where the library records nothing") {
  const FakeScope fake(FAKE_CUBLAS_LT, &kRuntime);
  const std::vector<std::int32_t> steps{1, 2, 3, 2, 8, 1, 7};
  std::vector<std::vector<float>> expected;
  {
    CudaOptions options = with_library();
    options.graph_rows = 0;
    const auto backend = make(options);
    Tied tied(*backend);
    for (const std::int32_t rows : steps) expected.push_back(tied.run(rows));
  }
  for (const bool refuses : {false, true}) {
    CAPTURE(refuses);
    fake->refuses_capture = refuses;
    const auto before = graph_counters();
    const auto backend = make(with_library());
    Tied tied(*backend);
    for (std::size_t i = 0; i < steps.size(); ++i) CHECK(tied.run(steps[i]) == expected[i]);
    const auto& after = graph_counters();
    CHECK(after.launches - before.launches == (refuses ? 0 : steps.size()));
    CHECK(after.captures - before.captures == (refuses ? 3 : steps.size()));
  }
}

TEST_CASE("a shape without an algorithm is an error of its own") {
  const FakeScope fake(FAKE_CUBLAS_LT, &kRuntime);
  const auto backend = make(with_library());
  Tied tied(*backend);
  const auto expected = tied.run(2);
  const auto unsupported = [&] {
    CHECK_THROWS_WITH_AS(tied.run(3),
                         doctest::Contains("matmul [3, 72] (stride 72) x [50, 72]^T of bf16 to f32 (stride 50): "
                                           "cuBLASLt 13.1.0 has no algorithm for it on emulated GPU; leave cublas_lt "
                                           "off"),
                         Unsupported);
  };
  fake->algorithms = 0;
  unsupported();
  fake->heuristic = 15;  // CUBLAS_STATUS_NOT_SUPPORTED
  unsupported();
  CHECK(tied.run(2) == expected);  // the backend goes on
}

TEST_CASE("a status that is no success stops this backend, with its name and the shape, and no other") {
  const FakeScope fake(FAKE_CUBLAS_LT, &kRuntime);
  const auto failing = [&](int fake_lt::State::*status, const char* call) {
    const auto backend = make(with_library()), other = make(with_library());
    Tied tied(*backend), others(*other);
    (*fake.operator->()).*status = 13;
    const std::string text = std::string(
                                 "matmul [3, 72] (stride 72) x [50, 72]^T of bf16 to f32 (stride 50) by "
                                 "cuBLASLt 13.1.0: ") +
                             call + " failed on device cuda:0: CUBLAS_STATUS_EXECUTION_FAILED";
    CHECK_THROWS_WITH_AS(tied.run(3), doctest::Contains((text + "; this backend cannot go on").c_str()), Aborted);
    (*fake.operator->()).*status = 0;
    CHECK_THROWS_WITH_AS(tied.run(3), doctest::Contains(("the CUDA backend stopped: " + text).c_str()), Aborted);
    others.run(3);
  };
  failing(&fake_lt::State::matmul, "cublasLtMatmul");
  failing(&fake_lt::State::heuristic, "cublasLtMatmulAlgoGetHeuristic");
}

TEST_CASE("any allocation may fail: OutOfMemory, and nothing is left behind") {
  const MachineScope scope;
  const FakeScope fake(FAKE_CUBLAS_LT, &kRuntime);
  int failures = 0;
  for (bool done = false; !done; ++failures) {
    CAPTURE(failures);
    cuda_emu::machine().allocations_left = failures;
    try {
      const auto backend = make(with_library());
      backend->reserve(1 << 20);
      Tied(*backend).run(2);
      done = true;
    } catch (const OutOfMemory&) {
    }
    cuda_emu::machine().allocations_left = -1;
    CHECK(fake->objects == 0);
    CHECK(cuda_emu::device_bytes_in_use() == 0);
    CHECK(cuda_emu::objects_in_use() == 0);
  }
  CHECK(failures > 3);  // pinned memory, streams, the arena
}
