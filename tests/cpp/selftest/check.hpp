// What a test asks of the checks of a self-test.
#pragma once

#include <doctest/doctest.h>

#include <set>

#include "faulty_backend.hpp"
#include "pagedcore/selftest.hpp"

namespace faulty {

inline void require_all_passed(const std::vector<SelftestCheck>& checks) {
  for (const SelftestCheck& c : checks) {
    CAPTURE(c.operation);
    CAPTURE(c.what);
    CAPTURE(c.error);
    CAPTURE(c.problem);
    CHECK(c.outcome != SelftestOutcome::failed);
  }
}

/// Every operation of Backend that a device has to offer.
inline void require_all_operations(const std::vector<SelftestCheck>& checks) {
  std::string all;
  for (const SelftestCheck& c : checks) all += c.operation + ";";
  for (const char* operation : {"upload",       "download",       "host_view",       "allocate",      "host_parallel",
                                "packed_bytes", "kv_block_bytes", "run_step",        "sample_tokens", "gather_rows",
                                "swap_in",      "swap_out",       "copy_blocks",     "norm",          "head_norm",
                                "pack",         "prepare",        "embed",           "matmul",        "rope_and_cache",
                                "attention",    "scale_softcap",  "embed_positions", "add",           "convert"}) {
    CAPTURE(operation);
    CHECK(all.find(operation) != std::string::npos);
  }
}

/// What the CUDA backend has no kernel for, and says so.
inline bool has_no_kernel(const SelftestCheck& check) {
  return check.what.starts_with("tokens behind a row") || check.what.starts_with("sinks") ||
         check.what.find("clamped_swiglu") != std::string::npos;
}

/// Makes one fault on `device` and looks for the first check that fails.
inline void require_flagged(Backend& device, Backend& reference, const Expectation& expected) {
  FaultyBackend broken(device, expected.fault);
  const std::vector<SelftestCheck> checks = selftest_checks(broken, reference, true);
  CAPTURE(expected.operation);
  CAPTURE(static_cast<int>(expected.fault));
  const auto failed = [](const SelftestCheck& c) { return c.outcome == SelftestOutcome::failed; };
  const auto first = std::find_if(checks.begin(), checks.end(), failed);
  REQUIRE(first != checks.end());
  CHECK(first->operation == expected.operation);
  if (expected.fault == Fault::throws) CHECK(first->problem == "the device is lost");
  if (expected.fault == Fault::sampled_none)
    CHECK(first->problem == "all of 12 tasks were left to the host, which cannot read the logits");
  const bool bits = expected.fault == Fault::batch_bits || expected.fault == Fault::chunk_bits ||
                    expected.fault == Fault::sampled_bits;
  if (bits) {  // nothing but the comparison of bits may notice
    CHECK(first->tolerance == 0.0);
    CHECK(std::count_if(checks.begin(), checks.end(), failed) == 1);
  }
}

}  // namespace faulty
