// The device that the engine's end-to-end tests run on. They are linked into two programs: with cpu_device.cpp, and
// with tests/cuda_emu/engine/emulated_device.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "pagedcore/engine.hpp"
#include "tiny_model.hpp"

namespace device {

struct Device {
  std::vector<pagedcore::DType> dtypes;  // compute types that it serves
  std::vector<std::int32_t> head_dims;   // of small models that it serves
  // What its speed allows:
  std::uint32_t tokens;     // to generate
  std::uint32_t strangers;  // requests beside the observed ones
  bool every_disturbance;   // else one of each kind
};
const Device& under_test();

/// A configuration of the device. threads: of the host.
pagedcore::EngineConfig config(pagedcore::DType dtype, int threads = 1);

/// The first of the compute types.
inline pagedcore::EngineConfig config() { return config(under_test().dtypes.front()); }

/// Models that the device serves.
inline tiny::TinyModel model(std::int32_t head_dim) { return tiny::TinyModel(151, 2, head_dim); }
inline tiny::TinyModel model() { return model(under_test().head_dims.front()); }

}  // namespace device
