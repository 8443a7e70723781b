"""The installed package with an emulated GPU: a copy of it whose plugin is built against the emulator.

``PAGEDCORE_CUDA_EMU_PLUGIN`` is that plugin, ``build/release/tests/cuda_emu/package/libpagedcore_cuda.so``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGIN = "libpagedcore_cuda.so"


def package_with(plugin: Path, folder: Path) -> Path:
    """Copies the installed package into the folder, with the plugin beside libpagedcore."""
    spec = importlib.util.find_spec("pagedcore")
    assert spec is not None and spec.origin is not None, "pagedcore is not installed"
    package = folder / "pagedcore"
    shutil.copytree(Path(spec.origin).parent, package, ignore=shutil.ignore_patterns("__pycache__", "include", "cmake"))
    (library,) = package.rglob("libpagedcore.so*")
    shutil.copy(plugin, library.parent / PLUGIN)
    return package


def pytest_configure(config: pytest.Config) -> None:
    # Before anything imports pagedcore: the native library is loaded once, and looks for the plugin beside itself.
    assert "pagedcore" not in sys.modules
    plugin = os.environ.get("PAGEDCORE_CUDA_EMU_PLUGIN")
    if plugin is None or not Path(plugin).is_file():
        raise pytest.UsageError(
            f"PAGEDCORE_CUDA_EMU_PLUGIN={plugin!r} is no file: give the {PLUGIN} that tests/cuda_emu builds"
        )
    folder = tempfile.mkdtemp()
    config.add_cleanup(lambda: shutil.rmtree(folder))
    package_with(Path(plugin), Path(folder))
    sys.path.insert(0, folder)


@pytest.fixture(scope="session", autouse=True)
def the_copy() -> Iterator[None]:
    import pagedcore

    assert (Path(pagedcore.__file__).parent / "lib" / PLUGIN).is_file()
    yield
