// The CPU backend as an object: what make_cpu_backend accepts, memory, host_parallel, and its own checks.
#include <doctest/doctest.h>

#include <atomic>
#include <limits>
#include <string>

#include "common.hpp"
#include "cpu/cpu_count.hpp"

using namespace test;

// rule: cpu.unsupported-is-refused
TEST_CASE("make_cpu_backend takes what the machine has and names what it lacks") {
  for (const std::string& isa : cpu_isas())
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const auto backend = make_cpu_backend({2, dtype, isa});
      CHECK(backend->compute_dtype() == dtype);
      CHECK(backend->describe() ==
            "cpu, " + isa + ", " + std::string(info(dtype).name) + ", native weights, 2 threads");
    }
  CHECK(usable_cpus() >= 1);
  CHECK(make_cpu_backend({})->describe().find(std::to_string(usable_cpus()) + " threads") != std::string::npos);
  CHECK_THROWS_AS(make_cpu_backend({-1, DType::f32, "auto"}), InvalidArgument);
  CHECK_THROWS_AS(make_cpu_backend({1 << 20, DType::f32, "auto"}), InvalidArgument);
  CHECK_THROWS_AS(make_cpu_backend({1, DType::f16, "auto"}), Unsupported);
  CHECK_THROWS_AS(make_cpu_backend({1, DType::f32, "sse9"}), InvalidArgument);
}

TEST_CASE("buffers are aligned and zeroed; too large a one is an error with its size") {
  const auto backend = make_cpu_backend({1, DType::f32, "auto"});
  for (const std::size_t bytes : {0u, 1u, 63u, 100000u}) {
    const auto buffer = backend->allocate(bytes);
    CHECK(buffer->bytes() == bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(buffer->data()) % 64 == 0);
    const auto* values = static_cast<const unsigned char*>(buffer->data());
    for (std::size_t i = 0; i < bytes; ++i) REQUIRE(values[i] == 0);
  }
  CHECK_THROWS_WITH_AS(backend->allocate(std::numeric_limits<std::size_t>::max()),
                       doctest::Contains("18446744073709551615 bytes"), OutOfMemory);
}

TEST_CASE("upload and download move packed rows to and from strided ones") {
  const auto backend = make_cpu_backend({1, DType::f32, "auto"});
  Matrix device(4, 6, 1, 2);
  const std::vector<float> sent = random_values(24, 2);
  std::vector<float> received(24);
  backend->upload(device.tensor, std::as_bytes(std::span(sent)));
  backend->download(std::as_writable_bytes(std::span(received)), device.tensor);
  backend->synchronize();
  CHECK(received == sent);
  CHECK(device.at(2, 3) == sent[15]);
  CHECK(device.gaps_untouched());
  CHECK(backend->host_view(device.tensor) == device.storage.data());
  CHECK_THROWS_AS(backend->upload(device.tensor, std::as_bytes(std::span(sent).first(23))), InvalidArgument);
  CHECK_THROWS_AS(backend->download(std::as_writable_bytes(std::span(received).first(18)), device.tensor),
                  InvalidArgument);
}

TEST_CASE("host_parallel runs everything and rethrows the failure of the smallest index") {
  const auto backend = make_cpu_backend({3, DType::f32, "auto"});
  std::vector<std::atomic<int>> runs(1000);
  backend->host_parallel(1000, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
  for (const auto& count : runs) CHECK(count == 1);
  for (int repeat = 0; repeat < 50; ++repeat)
    CHECK_THROWS_WITH_AS(backend->host_parallel(100,
                                                [](std::int64_t i) {
                                                  if (i % 10 == 7) throw Corrupt("index " + std::to_string(i));
                                                }),
                         "index 7", Corrupt);
  backend->host_parallel(0, [](std::int64_t) { FAIL("there is nothing to run"); });
  std::atomic<int> after{0};
  backend->host_parallel(10, [&](std::int64_t) { ++after; });
  CHECK(after == 10);
}

TEST_CASE("the backend refuses matrices of another compute type") {
  const auto backend = make_cpu_backend({1, DType::bf16, "auto"});
  Matrix in(2, 32, 1), out(2, 32, 2), weight(1, 32, 3);
  const HostTensor host{DType::f32, {1, 32}, 2, std::as_bytes(std::span(weight.storage))};
  const auto packed = backend->pack({&host, 1}, PackKind::stacked);
  CHECK_THROWS_AS(backend->matmul(out.tensor.slice_cols(0, 1), in.tensor, *packed, {}), InvalidArgument);
  const auto f32 = make_cpu_backend({1, DType::f32, "auto"});
  Tensor narrow = out.tensor;
  narrow.dtype = DType::bf16;
  CHECK_THROWS_AS(f32->norm(narrow, in.tensor, weight.tensor, nullptr, {}), InvalidArgument);
}
