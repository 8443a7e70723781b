"""Models in several GGUF files, ``<name>-00001-of-0000N.gguf``: metadata in the first, tensors in any of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import Corrupt, Io
from ..families.fields import Fields
from ..families.tensors import Tensor
from .gguf import GgufFile

__all__ = ["Gguf", "open_gguf", "shards"]

_NAME = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf")
_MOST_SHARDS = 99_999


class Gguf(NamedTuple):
    path: Path  # of the first file
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


def shards(name: str) -> list[str]:
    """The names of all files of the model that the file of this name is a part of; the name alone if it is whole."""
    match = _NAME.fullmatch(name)
    if match is None:
        return [name]
    stem, _, count = match.groups()
    return [f"{stem}-{number:05}-of-{count}.gguf" for number in range(1, int(count) + 1)]


def open_gguf(path: Path, *, mmap: bool) -> Gguf:
    """The whole model that ``path``, any one of its files, belongs to. Raises Io where one of them is missing."""
    file = GgufFile(path, mmap=mmap)
    count = _number(file, "split.count", 1, least=1)
    if count == 1:
        return Gguf(path, file.metadata, file.tensors)
    names = shards(path.name)
    if len(names) != count or path.name not in names:
        raise Io(
            f"{path}: is part {_number(file, 'split.no', 0) + 1} of a model in {count} files, which must lie in one "
            f"folder as <name>-00001-of-{count:05}.gguf to <name>-{count:05}-of-{count:05}.gguf"
        )
    missing = [name for name in names if not (path.parent / name).exists()]
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise Io(
            f"{path}: is part {names.index(path.name) + 1} of a model in {count} files; missing in {path.parent}: "
            f"{shown}"
        )
    files = [file if name == path.name else GgufFile(path.parent / name, mmap=mmap) for name in names]
    return Gguf(files[0].path, files[0].metadata, _all_tensors(files))


def _all_tensors(files: list[GgufFile]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for index, file in enumerate(files):
        if (number := _number(file, "split.no", 0)) != index:
            raise Corrupt(f"{file.path}: split.no = {number}, but by its name it is number {index} (counted from 0)")
        if (count := _number(file, "split.count", 1, least=1)) != len(files):
            raise Corrupt(f"{file.path}: split.count = {count}, but {files[0].path} says {len(files)}")
        for name, tensor in file.tensors.items():
            if name in tensors:
                raise Corrupt(f"{file.path}: the tensor '{name[:200]}' is in an earlier file of the model too")
            tensors[name] = tensor
    total = _number(files[0], "split.tensors.count", len(tensors), most=2**31 - 1)
    if total != len(tensors):
        raise Corrupt(f"{files[0].path}: split.tensors.count = {total}, but its files hold {len(tensors)} tensors")
    return tensors


def _number(file: GgufFile, name: str, default: int, *, least: int = 0, most: int = _MOST_SHARDS) -> int:
    return Fields(file.metadata, str(file.path)).integer(name, default, minimum=least, maximum=most)
