// What this machine has to compute with, for people and for tools: nothing here starts anything or throws for what is
// missing.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "pagedcore/export.hpp"

namespace pagedcore {

/// A GPU as its driver describes it.
struct CudaDevice {
  std::string name;
  int compute_major = 0;  // compute capability
  int compute_minor = 0;
  int multiprocessors = 0;
  std::size_t memory = 0;  // bytes
  double memory_rate =
      0.0;  // bytes/s that its memory moves at most, from its clock and the width of its bus; 0: unknown
  double matmul_rate = 0.0;  // FLOP/s of dense 16-bit products that add up in f32, from its clock; 0: unknown
  std::string problem;       // why it cannot be used, and what to do; empty: it can
};

/// The CUDA backend on this machine: plugin, driver, GPUs.
struct CudaStatus {
  std::string plugin;          // path of libpagedcore_cuda.so, whether it is there or not
  std::string plugin_version;  // of pagedcore; empty: it could not be opened
  int runtime_version = 0;     // CUDA that it was built with, 13000 for 13.0
  int driver_version = 0;      // CUDA that the driver serves at most; 0: there is no driver
  std::vector<CudaDevice> devices;
  std::string problem;  // why no GPU can be used, and what to do; empty: one of them can
};

/// Looks for the plugin beside libpagedcore, or at `plugin`, and asks it. Makes no context on any GPU. Thread-safe.
PAGEDCORE_API CudaStatus cuda_status(const std::string& plugin = "");

}  // namespace pagedcore
