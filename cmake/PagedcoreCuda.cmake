# The CUDA toolkit, and pagedcore_cuda_test(): kernels compiled by the host compiler against the emulator.
#
# PAGEDCORE_CUDA=AUTO builds what the machine has the tools for, OFF nothing, ON fails to configure where they are missing.
# A project that this one is a part of gets it only when it asks.
set(default OFF)
if(PAGEDCORE_IS_TOP_LEVEL)
  set(default AUTO)
endif()
set(PAGEDCORE_CUDA ${default} CACHE STRING "The CUDA backend and its emulated tests: AUTO, ON (an error without a toolkit) or OFF")
set_property(CACHE PAGEDCORE_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT PAGEDCORE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "PAGEDCORE_CUDA=${PAGEDCORE_CUDA}: AUTO, ON or OFF")
endif()

set(PAGEDCORE_CUDA_FOUND FALSE)
if(PAGEDCORE_CUDA STREQUAL "ON" AND NOT BUILD_SHARED_LIBS)
  message(FATAL_ERROR "PAGEDCORE_CUDA=ON with BUILD_SHARED_LIBS=OFF: the CUDA backend is a plugin of the shared library. "
                      "Set one of the two otherwise.")
endif()
if(NOT PAGEDCORE_CUDA STREQUAL "OFF" AND BUILD_SHARED_LIBS)
  find_package(CUDAToolkit 12.4 QUIET)
  if(CUDAToolkit_FOUND AND TARGET CUDA::cudart_static)
    set(PAGEDCORE_CUDA_FOUND TRUE)
    message(STATUS "CUDA toolkit ${CUDAToolkit_VERSION}: ${CUDAToolkit_BIN_DIR}")
  elseif(PAGEDCORE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "PAGEDCORE_CUDA=ON, but no CUDA toolkit from 12.4 up, with nvcc and libcudart_static.a, was found. "
                        "Put nvcc on the PATH, set CUDAToolkit_ROOT, or configure with -DPAGEDCORE_CUDA=AUTO.")
  else()
    message(STATUS "No CUDA toolkit from 12.4 up: the CUDA backend and its emulated tests are left out")
  endif()
endif()
