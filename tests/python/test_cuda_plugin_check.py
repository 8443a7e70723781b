"""tests/cuda/check_plugin.py: what it must find."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cuda"))

import check_plugin

NEEDED = ["libpagedcore.so.0.1", "libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "ld-linux-x86-64.so.2"]


def test_a_plugin_that_needs_no_cuda():
    assert check_plugin.problems(NEEDED, [check_plugin.ENTRY], 9_000_000) == []


@pytest.mark.parametrize("library", ["libcudart.so.13", "libcuda.so.1", "libcublas.so.13", "libtorch.so"])
def test_libraries_of_the_toolkit_and_the_driver(library):
    found = check_plugin.problems([*NEEDED, library], [check_plugin.ENTRY], 1)
    assert found == [f"needs {library}, which a machine without CUDA lacks"]


def test_exports_and_size():
    assert check_plugin.problems(NEEDED, [check_plugin.ENTRY, "cudaMalloc"], 1) == ["exports cudaMalloc"]
    assert check_plugin.problems(NEEDED, [], 1) == ["does not export pagedcore_cuda_plugin_v2"]
    assert check_plugin.problems(NEEDED, [check_plugin.ENTRY], 40_000_001) == ["has 40000001 bytes, more than 40000000"]
