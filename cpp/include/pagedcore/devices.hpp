// What this machine has to compute with, for people and for tools: nothing here starts anything or throws for what is
// missing.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/fields.hpp"

namespace pagedcore {

/// A GPU as its driver describes it.
struct CudaDevice {
  std::string name;
  int compute_major = 0;
  int compute_minor = 0;
  int multiprocessors = 0;
  std::size_t memory = 0;
  double memory_rate = 0.0;
  double matmul_rate = 0.0;
  std::string compilation;
  std::string problem;

  template <class V>
  static void fields(V&& v) {
    using D = CudaDevice;
    v(field("name", &D::name, ""));
    v(field("compute_major", &D::compute_major, "Compute capability."));
    v(field("compute_minor", &D::compute_minor, ""));
    v(field("multiprocessors", &D::multiprocessors, ""));
    v(field("memory", &D::memory, "Bytes."));
    v(field("memory_rate", &D::memory_rate,
            "Bytes/s that its memory moves at most, from its clock and the width of its bus; 0: unknown."));
    v(field("matmul_rate", &D::matmul_rate,
            "FLOP/s of dense 16-bit products that add up in f32, from its clock; 0: unknown."));
    v(field("compilation", &D::compilation,
            "What the driver has to compile for it when the backend is first opened; empty: nothing."));
    v(field("problem", &D::problem, "Why it cannot be used, and what to do; empty: it can."));
  }
};

/// The CUDA backend on this machine: plugin, driver, GPUs.
struct CudaStatus {
  std::string plugin;
  std::string plugin_version;
  int runtime_version = 0;
  int driver_version = 0;
  std::vector<CudaDevice> devices;
  std::string problem;

  template <class V>
  static void fields(V&& v) {
    using S = CudaStatus;
    v(field("plugin", &S::plugin, "Path of libpagedcore_cuda.so, whether it is there or not."));
    v(field("plugin_version", &S::plugin_version, "Of pagedcore; empty: it could not be opened."));
    v(field("runtime_version", &S::runtime_version, "CUDA that it was built with, 13000 for 13.0."));
    v(field("driver_version", &S::driver_version, "CUDA that the driver serves at most; 0: there is no driver."));
    v(field("devices", &S::devices, ""));
    v(field("problem", &S::problem, "Why no GPU can be used, and what to do; empty: one of them can."));
  }
};

/// CPUs that this process may run on, or the part of them that its control group allows.
PAGEDCORE_API int usable_cpus();

/// Looks for the plugin beside libpagedcore, or at `plugin`, and asks it. Makes no context on any GPU. Thread-safe.
PAGEDCORE_API CudaStatus cuda_status(const std::string& plugin = "");

}  // namespace pagedcore
