"""Checkpoints: what a model file or directory holds, under the names that pagedcore uses.

``load_checkpoint`` takes a GGUF file, a Hugging Face directory or hub id, or a pagedcore container. Weights stay on
disk until they are packed, and are read then, piece by piece; nothing is converted here.
"""

from __future__ import annotations

import os
from pathlib import Path

from .. import _core
from ..arguments import shown
from ..checks import check_text
from ..config_files import exists, open_regular, short_name
from ..errors import Corrupt, InvalidArgument, Io, Unsupported
from .checkpoint import Checkpoint, TokenizerSource

__all__ = ["Checkpoint", "TokenizerSource", "load_checkpoint", "load_description"]


def load_checkpoint(
    model: str | os.PathLike[str], *, mmap: bool = False, revision: str | None = None, token: str | None = None
) -> Checkpoint:
    """Opens a model: a path, or the name of one on the hub (``hub.hub_name``), of which ``revision`` and ``token`` say
    more. Raises Io for what cannot be read or changes while it is, Corrupt for what contradicts itself, and
    Unsupported for architectures, element types and options that pagedcore does not serve. ``mmap``: weights are used
    where they lie in mapped files, which trusts whoever may write to them: a mapped file that is shortened ends the
    process."""
    return _load(model, with_tensors=True, mmap=mmap, revision=revision, token=token)


def load_description(
    model: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None
) -> Checkpoint:
    """The same without ``tensors``: reads configuration and metadata only. To plan memory before anything is loaded."""
    return _load(model, with_tensors=False, mmap=False, revision=revision, token=token)


def _load(
    model: str | os.PathLike[str], *, with_tensors: bool, mmap: bool, revision: str | None, token: str | None
) -> Checkpoint:
    given = os.fspath(model) if isinstance(model, os.PathLike) else model
    if not isinstance(given, str) or not given:
        raise InvalidArgument(f"a model is a path, or a name on the hub, not {shown(model)}")
    check_text("model", given, path=True)
    path = Path(given)
    if given.startswith("hub:") or not exists(path):
        from .hub import download, hub_name

        name = hub_name(given) if isinstance(model, str) else None
        if name is not None:
            path = download(name, with_tensors=with_tensors, revision=revision, token=token)
            checkpoint = _load_checked(path, with_tensors=with_tensors, mmap=mmap)
            checkpoint.name = str(name)
            return checkpoint
        hint = "; ~ is left as it is: use os.path.expanduser()" if given.startswith("~") else ""
        raise Io(
            f"{short_name(given)}: there is no such file or directory, and it is no hub id of the form 'owner/name' "
            f"('hub:owner/name' always is one){hint}"
        )
    if revision is not None:
        raise InvalidArgument(f"revision={revision!r} has no effect: it is of a model on the hub, and {path} is here")
    return _load_checked(path, with_tensors=with_tensors, mmap=mmap)


def _load_checked(path: Path, *, with_tensors: bool, mmap: bool) -> Checkpoint:
    checkpoint = _load_path(path, with_tensors=with_tensors, mmap=mmap)
    try:
        _core.ModelDescription(**checkpoint.description).validate()
    except InvalidArgument as error:  # numbers that no model has, such as a vocabulary of 2^33 tokens
        raise Corrupt(f"{path}: {error}") from None
    return checkpoint


def _load_path(path: Path, *, with_tensors: bool, mmap: bool) -> Checkpoint:
    if path.is_dir():
        from .huggingface import load_directory

        return load_directory(path, with_tensors=with_tensors, mmap=mmap)
    try:
        with open_regular(path) as file:
            start = file.read(9)
    except OSError as error:
        if isinstance(error, Io):
            raise
        raise Io(f"{path}: cannot be read: {error.strerror}") from None
    if start.startswith(b"GGUF"):
        from .gguf_model import load_gguf

        return load_gguf(path, with_tensors=with_tensors, mmap=mmap)
    if start[8:] == b"{":  # the header length, then JSON
        from .container import load_container

        return load_container(path, with_tensors=with_tensors, mmap=mmap)
    if not start:
        raise Corrupt(f"{path}: is empty")
    raise Unsupported(
        f"{path}: is neither a GGUF file nor a pagedcore container (it begins with {start!r}). A Hugging Face model is "
        "named by its directory"
    )
