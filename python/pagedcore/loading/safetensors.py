"""safetensors files, read by the native reader."""

from __future__ import annotations

from pathlib import Path

from .. import _core
from ..families.tensors import Tensor

__all__ = ["read_safetensors", "tensors_of"]


def read_safetensors(path: Path, mmap: bool) -> dict[str, Tensor]:
    """Every tensor of a file; they keep it open."""
    return tensors_of(_core.ModelFile(str(path), mmap))


def tensors_of(file: _core.ModelFile) -> dict[str, Tensor]:
    return {name: Tensor(*file.stored(name)) for name in file.names()}
