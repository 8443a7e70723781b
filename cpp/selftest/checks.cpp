#include "selftest/checks.hpp"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::selftest {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double largest_error(std::span<const float> got, std::span<const float> want) {
  if (got.size() != want.size()) throw Corrupt(str(got.size(), " numbers came out instead of ", want.size()));
  double worst = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double a = got[i], b = want[i];
    const double error = std::fabs(a - b) / std::max(1.0, std::fabs(b));
    worst = std::isnan(error) ? kInfinity : std::max(worst, error);
  }
  return worst;
}

double difference(const Checks::Pair& pair) { return pair.got == pair.want ? 0.0 : kInfinity; }

}  // namespace

double tolerance_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 1e-4;
    case DType::f16:
      return 2e-3;
    default:
      return 2e-2;
  }
}

void Checks::add(const char* operation, const std::string& what, double tolerance, const std::function<double()>& error,
                 bool optional) {
  SelftestCheck check;
  check.operation = operation;
  check.what = what;
  check.tolerance = tolerance;
  check.error = kInfinity;
  try {
    check.error = error();
    check.outcome = check.error <= check.tolerance ? SelftestOutcome::passed : SelftestOutcome::failed;
  } catch (const Unsupported& e) {
    if (optional) check.outcome = SelftestOutcome::unsupported;
    check.problem = e.what();
  } catch (const std::exception& e) {
    check.problem = e.what();
  }
  results.push_back(std::move(check));
  if (told_) told_();
}

void Checks::compare(const char* operation, const std::string& what, DType result, const Run& run) {
  // Outside of what add() catches: a reference that throws is no failure of the device.
  const std::vector<float> want = run(reference_);
  add(operation, what, tolerance_of(result), [&] { return largest_error(run(device_), want); });
}

void Checks::compare_optional(const char* operation, const std::string& what, double tolerance, const Run& run) {
  const std::vector<float> want = run(reference_);
  add(
      operation, what, tolerance, [&] { return largest_error(run(device_), want); }, true);
}

void Checks::exact(const char* operation, const std::string& what, const std::function<Pair(Backend&)>& run) {
  add(operation, what, 0.0, [&] { return difference(run(device_)); });
}

void Checks::exact_optional(const char* operation, const std::string& what, const std::function<Pair(Backend&)>& run) {
  add(
      operation, what, 0.0, [&] { return difference(run(device_)); }, true);
}

void Checks::compare_host(const char* operation, const std::string& what, double tolerance,
                          const std::function<Numbers(Backend&)>& run) {
  std::string note;
  add(
      operation, what, tolerance,
      [&] {
        const Numbers numbers = run(device_);
        note = numbers.note;
        return largest_error(numbers.got, numbers.want);
      },
      true);
  results.back().note = note;
}

}  // namespace pagedcore::selftest

namespace pagedcore {

std::vector<SelftestCheck> selftest_checks(Backend& device, Backend& reference, bool quick,
                                           const std::function<void()>& told) {
  if (reference.compute_dtype() != DType::f32)
    throw InvalidArgument(str("the reference of a self-test computes in ", info(reference.compute_dtype()).name,
                              "; it must compute in f32"));
  if (&device == &reference) throw InvalidArgument("a device cannot be its own reference: make two backends");
  selftest::Checks checks(device, reference, quick, told);
  selftest::check_memory(checks);
  selftest::check_rows(checks);
  selftest::check_matmul(checks);
  selftest::check_mixture(checks);
  selftest::check_attention(checks);
  selftest::check_step(checks);
  selftest::check_sampling(checks);
  return std::move(checks.results);
}

}  // namespace pagedcore
