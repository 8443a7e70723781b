"""pytorch_model*.bin: pickles, read by torch with code execution disabled."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from .. import _core
from ..errors import Corrupt, InvalidArgument, Io, Unsupported
from ..families.tensors import Tensor

__all__ = ["read_torch_file"]


def read_torch_file(path: Path, *, mmap: bool) -> dict[str, Tensor]:
    """Every tensor of a file, in memory, or with ``mmap`` mapped."""
    try:
        import torch
    except ImportError:
        raise InvalidArgument(
            f"{path}: a PyTorch checkpoint needs torch to be read: pip install 'pagedcore[torch]', or convert it to "
            "safetensors"
        ) from None
    dtypes = {
        torch.float32: "f32",
        torch.bfloat16: "bf16",
        torch.float16: "f16",
        torch.float64: "f64",
        torch.int8: "i8",
        torch.uint8: "u8",
        torch.int16: "i16",
        torch.int32: "i32",
        torch.int64: "i64",
        torch.bool: "bool",
    }
    tensors = {}
    for name, tensor in _load(path, mmap).items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise Corrupt(f"{path}: {str(name)[:200]!r} is not a named tensor")
        if tensor.layout is not torch.strided or tensor.dtype not in dtypes or tensor.dim() > 4:
            raise Unsupported(
                f"{path}: tensor '{name}' has the type {tensor.dtype}, layout {tensor.layout} and {tensor.dim()} "
                f"dimensions; supported are {', '.join(dtypes.values())}, strided, at most 4"
            )
        flat = tensor.detach().contiguous().flatten().view(torch.uint8)
        tensors[name] = Tensor(dtypes[tensor.dtype], tuple(tensor.shape), flat.numpy().data)
    return tensors


def _load(path: Path, mmap: bool) -> dict[Any, Any]:
    import torch

    file = _core.InputFile(str(path))  # a regular file, and not empty: reading a pipe would wait
    try:
        # Files of torch before 1.6 are no zip archives and cannot be mapped.
        mapped = mmap and zipfile.is_zipfile(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        file.part(0, 1).read()  # raises Io if it was changed meanwhile
    except Io:
        raise
    except Exception as error:  # pickle, zipfile and torch raise many kinds for bytes that they do not understand
        file.part(0, 1).read()
        raise Corrupt(f"{path}: is not a PyTorch checkpoint of plain tensors: {str(error)[:300]}") from None
    if not isinstance(state, dict):
        raise Corrupt(f"{path}: holds a {type(state).__name__}, not tensors by name")
    return state
