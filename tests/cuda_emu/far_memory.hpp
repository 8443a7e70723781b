// Device memory of more than 2^31 elements, of which a test touches a few.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <span>
#include <vector>

#include "device_array.hpp"
#include "runtime/runtime.hpp"

namespace cuda_test {

/// `size` elements that are zero, though the machine may have less memory.
template <typename T>
class FarMemory {
 public:
  explicit FarMemory(std::size_t size) {
    const std::size_t before = cuda_emu::machine().device_bytes;
    cuda_emu::machine().device_bytes = before + size * sizeof(T);
    void* p = nullptr;
    check(cudaMalloc(&p, size * sizeof(T)));
    data_ = static_cast<T*>(p);
    bytes_ = size * sizeof(T);
  }
  ~FarMemory() {
    cudaFree(data_);
    cuda_emu::machine().device_bytes -= bytes_;
  }
  FarMemory(const FarMemory&) = delete;
  FarMemory& operator=(const FarMemory&) = delete;

  T* data() const { return data_; }
  void put(std::size_t at, std::span<const T> values) {
    check(cudaMemcpy(data_ + at, values.data(), values.size_bytes(), cudaMemcpyHostToDevice));
  }
  std::vector<T> get(std::size_t at, std::size_t count) const {
    std::vector<T> values(count);
    check(cudaMemcpy(values.data(), data_ + at, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace cuda_test
