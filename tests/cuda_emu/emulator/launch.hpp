// Launches: checked when they are made, executed when their stream gets there.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "emulator/failure.hpp"

namespace cuda_emu {

struct Launch {
  const void* kernel = nullptr;
  const char* name = "";
  dim3 grid, block;
  std::size_t dynamic_shared_bytes = 0;
  Where where;
  std::function<void()> thread;  // what every thread runs
};

/// Checks the configuration as a device would and appends the launch to the stream. cudaGetLastError() tells of errors.
void launch(Launch launch, cudaStream_t stream);
/// Runs all blocks of a launch now.
void run(const Launch& launch);

/// Evaluates a kernel's arguments as a launch does: now, by value, as the types of its parameters.
template <typename... Parameters, typename... Arguments>
std::function<void()> bind(void (*kernel)(Parameters...), Arguments&&... arguments) {
  return [kernel, values = std::tuple<std::remove_cv_t<Parameters>...>(std::forward<Arguments>(arguments)...)] {
    std::apply(kernel, values);
  };
}

}  // namespace cuda_emu

#define CUDA_EMU_LAUNCH(kernel_function, launch_grid, launch_block, launch_shared_bytes, launch_stream, ...)           \
  ::cuda_emu::launch({reinterpret_cast<const void*>(kernel_function), #kernel_function, (launch_grid), (launch_block), \
                      static_cast<std::size_t>(launch_shared_bytes), ::cuda_emu::Where::current(),                     \
                      ::cuda_emu::bind((kernel_function)__VA_OPT__(, ) __VA_ARGS__)},                                  \
                     (launch_stream))
#define PC_LAUNCH CUDA_EMU_LAUNCH  // kernels/device.cuh lists the kernels of the sources that include it

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  return ::cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
