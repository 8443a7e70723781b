// The self-test passes on what works, on every instruction set, and names what does not.
#include "check.hpp"

using namespace faulty;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSlow = true;  // ten times: the same operations then on small shapes, and faults in one compute type
#else
constexpr bool kSlow = false;
#endif

std::unique_ptr<Backend> portable() { return make_cpu_backend({2, DType::f32, "portable"}); }

}  // namespace

// rule: selftest.same-numbers
TEST_CASE("every instruction set and compute type of this CPU passes") {
  const auto reference = portable();
  for (const std::string& isa : cpu_isas()) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      CAPTURE(isa);
      CAPTURE(info(dtype).name);
      const auto device = make_cpu_backend({2, dtype, isa});
      const auto checks = selftest_checks(*device, *reference, isa == "portable" || kSlow);
      require_all_passed(checks);
      require_all_operations(checks);
      for (const SelftestCheck& c : checks) {
        CAPTURE(c.what);
        const bool fp8_kv = c.what.starts_with("keys and values as f8") || c.what.starts_with("whole blocks of f8");
        CHECK((c.outcome == SelftestOutcome::unsupported) == (fp8_kv || c.operation == "sample_tokens"));
      }
    }
  }
}

// rule: selftest.first-failure-names-the-culprit
TEST_CASE("a fault in one operation is found, and the operation named") {
  const auto reference = portable();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    if (kSlow && dtype == DType::f32) continue;
    const auto device = make_cpu_backend({1, dtype, "auto"});
    for (const Expectation& expected : kExpectations) require_flagged(*device, *reference, expected);
  }
}

// rule: selftest.throw-fails-one-check
TEST_CASE("an operation that throws fails every check that needs it, with its text, and no other") {
  const auto reference = portable(), inner = make_cpu_backend({1, DType::bf16, "auto"});
  FaultyBackend broken(*inner, Fault::throws);
  int attention = 0, others = 0;
  for (const SelftestCheck& c : selftest_checks(broken, *reference, true)) {
    if (c.outcome == SelftestOutcome::unsupported) continue;
    if (c.operation != "attention") {
      others += c.outcome == SelftestOutcome::failed;
      continue;
    }
    ++attention;
    CHECK(c.outcome == SelftestOutcome::failed);
    CHECK(c.problem == "the device is lost");
  }
  CHECK(attention >= 4);
  CHECK(others == 2);  // a copied block, which attention reads, and steps
}

// rule: selftest.declined-sampling-is-noted
TEST_CASE("a device that samples passes, and what it leaves to the host is noted") {
  const auto reference = portable(), inner = make_cpu_backend({1, DType::bf16, "auto"});
  for (const Fault fault : {Fault::none, Fault::sampled_some}) {
    FaultyBackend device(*inner, fault);
    std::vector<std::string> notes;
    for (const SelftestCheck& c : selftest_checks(device, *reference, true)) {
      CHECK((c.outcome == SelftestOutcome::passed || c.operation != "sample_tokens"));
      if (!c.note.empty()) notes.push_back(c.note);
    }
    const std::string one = "1 of 12 tasks were left to the host", two = "2 of 16 tasks were left to the host";
    CHECK(notes == (fault == Fault::none ? std::vector<std::string>{} : std::vector{one, two, two, one}));
  }
}

// rule: selftest.throw-fails-one-check
TEST_CASE("what cannot be a reference") {
  const auto reference = portable(), narrow = make_cpu_backend({1, DType::bf16, "auto"});
  CHECK_THROWS_WITH_AS(selftest_checks(*reference, *narrow), doctest::Contains("it must compute in f32"),
                       InvalidArgument);
  CHECK_THROWS_AS(selftest_checks(*reference, *reference), InvalidArgument);
}

TEST_CASE("what is timed is not zeros: a device may be faster over those") {
  const auto device = make_cpu_backend({1, DType::bf16, "auto"});
  struct Watching : ForwardingBackend {
    using ForwardingBackend::ForwardingBackend;
    void look_at(const Tensor& t) {
      const std::span row(static_cast<const std::uint16_t*>(t.data), static_cast<std::size_t>(t.cols));
      ++looked;
      zeros += std::ranges::count(row, 0) > t.cols / 100;
    }
    void matmul(const Tensor& out, const Tensor& in, const Weight& weight, const Epilogue& e) override {
      look_at(in);
      ForwardingBackend::matmul(out, in, weight, e);
    }
    void attention(const Tensor& out, const Tensor& q, const KvStorage& kv, std::int32_t layer, const Batch& batch,
                   const AttentionParams& p) override {
      look_at(q);
      ForwardingBackend::attention(out, q, kv, layer, batch, p);
      look_at(out);  // of values that are none
    }
    int looked = 0, zeros = 0;
  };
  Watching watching(*device);
  selftest_rates(watching, {1 << 20, 40, 0.0});
  CHECK(watching.looked > 10);
  CHECK(watching.zeros == 0);
}

TEST_CASE("rates are positive, and their bytes and operations those of the shapes") {
  const auto device = make_cpu_backend({1, DType::bf16, "auto"});
  const std::vector<SelftestRate> rates = selftest_rates(*device, {1 << 20, 40, 0.001});
  std::set<std::string> operations;
  for (const SelftestRate& r : rates) {
    CAPTURE(r.operation);
    CAPTURE(r.what);
    operations.insert(r.operation);
    CHECK(r.seconds > 0.0);
    CHECK(r.bytes > 0.0);
    CHECK((r.flops > 0.0) == (r.operation == "matmul" || r.operation == "attention"));
    CHECK(r.host_link == (r.operation == "swap_in" || r.operation == "swap_out"));
  }
  // Products of few rows, which stream weights, and of more: 1, 2, 4, 8, 16, 32, 33 and the 40 that were asked for.
  CHECK(std::ranges::count(rates, "matmul", &SelftestRate::operation) == 8);
  CHECK(operations == std::set<std::string>{"attention", "copy_blocks", "matmul", "swap_in", "swap_out"});
  // 1 MiB of bf16 are 128 x 4096 weights; 40 rows of them.
  const auto large =
      std::find_if(rates.begin(), rates.end(), [](const SelftestRate& r) { return r.what.starts_with("40"); });
  REQUIRE(large != rates.end());
  CHECK(large->flops == 2.0 * 40 * 128 * 4096);
  CHECK(large->bytes == 128.0 * 4096 * 2 + 40.0 * 4096 * 2 + 40.0 * 128 * 4);
  for (const SelftestSizes& bad :
       {SelftestSizes{1000, 40, 0.1}, SelftestSizes{1 << 20, 0, 0.1}, SelftestSizes{1 << 20, 40, -1.0}}) {
    CHECK_THROWS_AS(selftest_rates(*device, bad), InvalidArgument);
  }
  // 8,388,608 results of f32 for each of 65,536 rows: 2 TiB.
  CHECK_THROWS_WITH_AS(selftest_rates(*device, {std::size_t{1} << 36, 1 << 16, 0.0}),
                       doctest::Contains("a measurement of 68719476736 bytes and 65536 rows takes "), OutOfMemory);
}
