// Stands in for the toolkit's cuda_runtime.h when kernels are compiled by the host compiler: the toolkit's types and
// prototypes, and the emulator behind them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime_api.h>

#include "emulator/device.hpp"
#include "emulator/half_math.hpp"
#include "emulator/intrinsics.hpp"
#include "emulator/launch.hpp"
