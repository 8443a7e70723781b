// Runs checks and keeps their outcomes.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "pagedcore/selftest.hpp"

namespace pagedcore::selftest {

/// What is allowed of a result that was rounded to this type: see selftest_checks().
double tolerance_of(DType dtype);

class Checks {
 public:
  Checks(Backend& device, Backend& reference, bool quick, const std::function<void()>& told)
      : device_(device), reference_(reference), quick_(quick), told_(told) {}

  /// What an operation gives on a backend.
  using Run = std::function<std::vector<float>(Backend& backend)>;
  /// The device's numbers against those of the reference. `result` is the type in which the device keeps them, or that
  /// of what it keeps on the way where that is narrower.
  void compare(const char* operation, const std::string& what, DType result, const Run& run);
  /// Likewise, with a tolerance of its own, of what a device need not offer: it may throw Unsupported.
  void compare_optional(const char* operation, const std::string& what, double tolerance, const Run& run);

  /// Whether two ways give the same bytes on the device.
  struct Pair {
    std::vector<std::byte> got, want;
  };
  void exact(const char* operation, const std::string& what, const std::function<Pair(Backend& device)>& run);
  void exact_optional(const char* operation, const std::string& what, const std::function<Pair(Backend& device)>& run);

  /// Numbers of the device against those that the host worked out, of what a device need not offer. `note`: as
  /// SelftestCheck's.
  struct Numbers {
    std::vector<float> got, want;
    std::string note;
  };
  void compare_host(const char* operation, const std::string& what, double tolerance,
                    const std::function<Numbers(Backend& device)>& run);

  bool quick() const noexcept { return quick_; }
  bool serves_mixtures() const noexcept { return device_.serves_mixtures(); }
  DType compute_dtype() const noexcept { return device_.compute_dtype(); }
  std::vector<SelftestCheck> results;

 private:
  void add(const char* operation, const std::string& what, double tolerance, const std::function<double()>& error,
           bool optional = false);

  Backend& device_;
  Backend& reference_;
  bool quick_;
  const std::function<void()>& told_;
};

/// In this order.
void check_memory(Checks& checks);
void check_rows(Checks& checks);
void check_matmul(Checks& checks);
void check_mixture(Checks& checks);
void check_attention(Checks& checks);
void check_step(Checks& checks);
void check_sampling(Checks& checks);

}  // namespace pagedcore::selftest
