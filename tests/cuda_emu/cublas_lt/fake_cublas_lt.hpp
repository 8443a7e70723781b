// A library with libcublasLt's interface, for tests. It computes on the emulated device, takes nothing on trust and
// keeps a record. Its algorithm, and so the order of its sums, depends on the shape.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/runtime.hpp"

namespace fake_lt {

/// out^T [n, m] = W in^T + beta out^T, by so many partial sums in the workspace; 1: none.
struct Call {
  std::int64_t m, n, k, in_stride, out_stride;
  bool narrow_out;
  float beta;
  int splits;
};

struct State {
  const cuda_emu::Hooks* runtime = nullptr;
  std::size_t version = 130100;
  int create = 0, heuristic = 0, matmul = 0;  // statuses
  int algorithms = 1;                         // that are found for a product
  bool refuses_capture = false;

  std::string fault;  // the first argument that was wrong
  int objects = 0;    // handles, descriptors and others that are alive
  int heuristics = 0;
  std::size_t workspace = 0;  // bytes of the last product
  std::vector<Call> calls;
};

// Found by dlsym: extern "C" State* fake_cublas_lt_state().

}  // namespace fake_lt
