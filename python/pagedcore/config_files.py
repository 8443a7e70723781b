"""Small files that come with a model, and that anybody may have written: texts and JSON objects.

They are read whole, within bounds, and only if they are regular files: a FIFO would block its reader for ever, a device
may have no end.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from .errors import Corrupt, Io

__all__ = [
    "can_be_a_name",
    "exists",
    "is_there",
    "open_regular",
    "read_bytes",
    "read_given",
    "read_object",
    "read_text",
    "short_name",
]

_MOST_BYTES = 64 << 20
_MOST_VALUES = 500_000  # of a JSON document: each takes some hundred bytes of memory, however few it has in the file
_DEEPEST = 100

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def exists(path: Path) -> bool:
    """Whether it leads to a file or a directory. Raises Io for a name that cannot be looked at, such as one that is too
    long."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise Io(f"{short_name(path)}: cannot be looked at: {error.strerror}") from None
    except ValueError:
        raise _no_name(path) from None
    return True


def short_name(path: Path | str) -> str:
    """A path for a message."""
    name = str(path)
    return name if len(name) <= 300 else name[:150] + "..." + name[-50:]


def _no_name(path: Path) -> Io:
    return Io(f"{short_name(path)!a} is no name that a file can have")


def can_be_a_name(name: str) -> bool:
    """Whether a file can: a name that stands in another file may hold half of a surrogate pair, or a zero."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def is_there(path: Path) -> bool:
    """Whether there is anything of that name, be it a link that leads nowhere: it was meant to be read."""
    return os.path.lexists(path)


def _check_regular(path: Path) -> None:
    """Raises Io unless it is a regular file. Opens nothing: to open a device may already do something."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise Io(f"{path}: is a link to '{os.readlink(path)}', where there is nothing") from None
        raise Io(f"{path}: there is no such file") from None
    except OSError as error:
        raise Io(f"{short_name(path)}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise _no_name(path) from None
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise Io(f"{path}: is {kind}; a model's files are regular files")


def open_regular(path: Path) -> BinaryIO:
    """A file, opened to be read. Raises Io if it is no regular file, or cannot be opened."""
    _check_regular(path)
    try:
        # O_NONBLOCK: what was a file a moment ago may be a FIFO now.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise Io(f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Io(f"{path}: is no regular file")
    return file


def read_bytes(path: Path, *, most: int = _MOST_BYTES) -> bytes:
    """Raises Io if it cannot be read, Corrupt if it is longer than ``most`` bytes."""
    with open_regular(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            data = file.read(min(size, most) + 1)
        except OSError as error:
            raise Io(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > most:
        raise Corrupt(f"{path}: has {max(size, len(data))} bytes; a file of this kind has at most {most}")
    return data


def read_text(path: Path, *, most: int = _MOST_BYTES) -> str:
    """The text of a file in UTF-8. Raises Io if it cannot be read, Corrupt if it is longer than ``most`` bytes or no
    UTF-8."""
    try:
        return str(read_bytes(path, most=most), "utf-8")
    except UnicodeDecodeError as error:
        raise Corrupt(f"{path}: is not UTF-8: {error}") from None


def read_given(path: str | os.PathLike[str], *, most: int = 1 << 20) -> str:
    """The text of a file that its owner names, such as a configuration; it may be a pipe. Raises Io if it cannot be
    read, Corrupt if it is longer than ``most`` bytes or no UTF-8."""
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise Io(f"{os.fspath(path)}: cannot be read: {error.strerror}") from None
    if len(data) > most:
        raise Corrupt(f"{os.fspath(path)}: has more than {most} bytes")
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise Corrupt(f"{os.fspath(path)}: is not UTF-8: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds. Raises Corrupt if it holds anything else, more than 500,000 values or values
    nested more than 100 deep."""
    text = read_text(path)
    if sum(map(text.count, ",[{")) > _MOST_VALUES:
        raise Corrupt(f"{path}: holds more than {_MOST_VALUES} values")
    try:
        values: Any = json.loads(text)
    except RecursionError:
        raise Corrupt(f"{path}: nests values too deep ({_DEEPEST} levels are possible)") from None
    except ValueError as error:
        raise Corrupt(f"{path}: is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise Corrupt(f"{path}: is {_named(values)}, not a JSON object")
    if _nesting_of(values) > _DEEPEST:
        raise Corrupt(f"{path}: nests values more than {_DEEPEST} deep")
    return values


def _nesting_of(value: Any) -> int:
    """How many objects and arrays lie in each other."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def _named(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
