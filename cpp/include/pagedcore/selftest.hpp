// Whether a device computes what it should, and how fast: every operation of a Backend against another backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "pagedcore/backend.hpp"
#include "pagedcore/export.hpp"

namespace pagedcore {

enum class SelftestOutcome : std::uint8_t {
  passed,
  failed,
  unsupported,  // the device does not offer this, and says so; or it leaves this to the host, as it may
};
template <>
struct Words<SelftestOutcome> {
  static constexpr Word<SelftestOutcome> list[] = {{SelftestOutcome::passed, "passed"},
                                                   {SelftestOutcome::failed, "failed"},
                                                   {SelftestOutcome::unsupported, "unsupported"}};
};

/// One check. Both backends are given the same numbers, unit-normal ones that f32, bf16 and f16 all hold exactly. Of
/// sampling, the reference is the host's sampler.
struct SelftestCheck {
  std::string operation;
  std::string what;
  double error = 0.0;
  double tolerance = 0.0;
  SelftestOutcome outcome = SelftestOutcome::failed;
  std::string problem;
  std::string note;

  template <class V>
  static void fields(V&& v) {
    using C = SelftestCheck;
    v(field("operation", &C::operation, "Of Backend."));
    v(field("what", &C::what, "Of it is checked."));
    v(field("error", &C::error,
            "The largest |device - reference| / max(1, |reference|); infinite where nothing came out."));
    v(field("tolerance", &C::tolerance, "That is allowed; 0: all bits must be the same."));
    v(field("outcome", &C::outcome, ""));
    v(field("problem", &C::problem, "The text of what was thrown; empty: nothing was."));
    v(field("note", &C::note,
            "What else is worth knowing: how many tasks the device left to the host; empty: nothing is."));
  }
};

/// Runs the checks, in memory of up to 300 MiB (quick: a few MiB). `reference` computes in f32 (InvalidArgument
/// otherwise); it may not be the same object. An exception of the device fails its check, and the others go on; one of
/// the reference is thrown. A check uses only operations that were checked before it, so that the first one that fails
/// names the operation that is broken. `quick` leaves out the larger shapes.
///
/// Tolerances go by the type of the result. f32: 1e-4, as only the order of sums differs, and matrix units may cut
/// their sums to f32 instead of rounding them. f16 2e-3 and bf16 2e-2: four to five times their rounding error (4.9e-4
/// and 3.9e-3), since queries, keys, values and probabilities are rounded besides the result. Narrower KV types have
/// tolerances of their own. Tokens that a device samples are the host's, log-probabilities up to the last bit (1.2e-7);
/// a device whose logits the host cannot read and that leaves all tasks of a kind to the host fails.
///
/// `told` is called after each check; what it throws ends the run.
PAGEDCORE_API std::vector<SelftestCheck> selftest_checks(Backend& device, Backend& reference, bool quick = false,
                                                         const std::function<void()>& told = {});

/// Sizes of measurements. The larger ones should exceed every cache of the device.
struct SelftestSizes {
  std::size_t bytes = std::size_t{128} << 20;  // of a weight, a KV cache, a copy; at least 1 MiB
  std::int32_t rows = 256;                     // of a large matmul and of a prefill, at least 1
  double seconds = 0.2;                        // of a measurement, at least
};

/// What one call cost, by the host's clock: the least mean of several rounds of calls, each waited for once.
struct SelftestRate {
  std::string operation;
  std::string what;
  double seconds = 0.0;
  double bytes = 0.0;
  double flops = 0.0;
  bool host_link = false;

  template <class V>
  static void fields(V&& v) {
    using R = SelftestRate;
    v(field("operation", &R::operation, "Of Backend."));
    v(field("what", &R::what, "Of it is measured."));
    v(field("seconds", &R::seconds, "Of one call."));
    v(field("bytes", &R::bytes,
            "That it has to read or write in the memory of the device, or to move to or from the host's."));
    v(field("flops", &R::flops, "Floating-point operations that it has to do."));
    v(field("host_link", &R::host_link, "The bytes go to or from host memory."));
  }
};

/// Measures copies, swaps, products and attention, all with compute_dtype(). Throws as the backend does, and
/// InvalidArgument for sizes out of range, OutOfMemory for more memory than there is. `told` is called after each one.
PAGEDCORE_API std::vector<SelftestRate> selftest_rates(Backend& device, const SelftestSizes& sizes = {},
                                                       const std::function<void()>& told = {});

}  // namespace pagedcore
