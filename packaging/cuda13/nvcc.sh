#!/usr/bin/env bash
# nvcc and the libraries that the CUDA backend is built with, from NVIDIA's wheels:   bash packaging/cuda13/nvcc.sh FOLDER
# Afterwards CUDAToolkit_ROOT=FOLDER/nvidia/cu13.
set -euo pipefail
"${PYTHON:-python3}" -m pip install --quiet --no-deps --target "$1" \
  nvidia-cuda-{nvcc,runtime,crt,cccl}==13.0.* nvidia-nvvm==13.0.*
ln -sfn lib "$1/nvidia/cu13/lib64"  # where nvcc looks, and the name that CMake looks for
ln -sfn libcudart.so.13 "$1/nvidia/cu13/lib/libcudart.so"
chmod +x "$1"/nvidia/cu13/bin/* "$1"/nvidia/cu13/nvvm/bin/*
