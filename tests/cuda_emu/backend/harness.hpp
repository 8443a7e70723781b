// A CUDA backend on the emulator, and matrices in its memory.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "backend/backend.hpp"
#include "pagedcore/error.hpp"
#include "runtime/runtime.hpp"

namespace cuda_test {

using namespace pagedcore;

inline CudaOptions small() {
  CudaOptions options;
  options.threads = 1;
  options.workspace = 4 << 20;
  return options;
}
inline std::unique_ptr<Backend> make(const CudaOptions& options = small()) {
  return std::make_unique<pagedcore::cuda::CudaBackend>(options);
}

/// Sets the machine back at the end of a test.
struct MachineScope {
  ~MachineScope() { cuda_emu::machine() = cuda_emu::Machine{}; }
};

inline std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

/// A matrix of any type in the memory of a backend; values travel as f32.
class Matrix {
 public:
  Matrix(Backend& backend, DType dtype, std::int64_t rows, std::int64_t cols)
      : backend_(backend), buffer_(backend.allocate(bytes_of(dtype, rows * cols))) {
    tensor = {buffer_->data(), dtype, rows, cols, cols};
  }
  Matrix(Backend& backend, DType dtype, std::int64_t rows, std::int64_t cols, const std::vector<float>& values)
      : Matrix(backend, dtype, rows, cols) {
    if (dtype == DType::f32) {
      backend.upload(tensor, std::as_bytes(std::span(values)));
      return;
    }
    std::vector<std::uint16_t> narrow;
    for (const float v : values) {
      std::uint32_t bits;
      std::memcpy(&bits, &v, sizeof bits);
      narrow.push_back(static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16));
    }
    backend.upload(tensor, std::as_bytes(std::span(narrow)));
  }
  std::vector<float> values() const {
    const auto count = static_cast<std::size_t>(tensor.rows * tensor.cols);
    std::vector<float> out(count);
    if (tensor.dtype == DType::f32) {
      backend_.download(std::as_writable_bytes(std::span(out)), tensor);
      return out;
    }
    std::vector<std::uint16_t> narrow(count);
    backend_.download(std::as_writable_bytes(std::span(narrow)), tensor);
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint32_t bits = static_cast<std::uint32_t>(narrow[i]) << 16;
      std::memcpy(&out[i], &bits, sizeof bits);
    }
    return out;
  }

  Tensor tensor;

 private:
  Backend& backend_;
  std::unique_ptr<Buffer> buffer_;
};

}  // namespace cuda_test
