"""Checkpoints: what a model file or directory holds, under the names that pagedcore uses.

``load_checkpoint`` takes a GGUF file, a Hugging Face directory or hub id, or a pagedcore container. Weights stay where
they are on disk (mmap) until they are packed; nothing is converted here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..config_files import open_regular
from ..errors import Io, Unsupported
from .checkpoint import Checkpoint, TokenizerSource

__all__ = ["Checkpoint", "TokenizerSource", "load_checkpoint", "load_description"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def load_checkpoint(model: str | os.PathLike[str]) -> Checkpoint:
    """Opens a model. Raises Io for what cannot be read, Corrupt for what contradicts itself, and Unsupported for
    architectures, element types and options that pagedcore does not serve."""
    return _load(model, with_tensors=True)


def load_description(model: str | os.PathLike[str]) -> Checkpoint:
    """The same without ``tensors``: reads configuration and metadata only. To plan memory before anything is loaded."""
    return _load(model, with_tensors=False)


def _load(model: str | os.PathLike[str], *, with_tensors: bool) -> Checkpoint:
    path = Path(model)
    if path.is_dir():
        from .huggingface import load_directory

        return load_directory(path, with_tensors=with_tensors)
    if path.exists():
        return _load_file(path, with_tensors=with_tensors)
    if isinstance(model, str) and _HUB_ID.fullmatch(model):
        from .hub import download
        from .huggingface import load_directory

        checkpoint = load_directory(download(model, with_tensors=with_tensors), with_tensors=with_tensors)
        checkpoint.name = model
        return checkpoint
    raise Io(f"{path}: there is no such file or directory, and it is no hub id of the form 'owner/name'")


def _load_file(path: Path, *, with_tensors: bool) -> Checkpoint:
    try:
        with open_regular(path) as file:
            start = file.read(9)
    except OSError as error:
        if isinstance(error, Io):
            raise
        raise Io(f"{path}: cannot be read: {error.strerror}") from None
    if start.startswith(b"GGUF"):
        from .gguf_model import load_gguf

        return load_gguf(path, with_tensors=with_tensors)
    if start[8:] == b"{":  # the header length, then JSON
        from .container import load_container

        return load_container(path, with_tensors=with_tensors)
    raise Unsupported(
        f"{path}: is neither a GGUF file nor a pagedcore container (it begins with {start!r}). A Hugging Face model is "
        "named by its directory"
    )
