"""What stands at the beginning of a GGUF file: numbers, texts and arrays, one behind the other.

A file's header may be as long as the file: it is read through a window, and arrays take no more memory than they have
bytes in the file. What takes more, since each has an object of its own, is limited in number.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, overload

from .. import _core
from ..errors import Corrupt

__all__ = ["GgufHeader", "Texts"]

MOST_TEXTS = 1 << 21
"""In one array. The largest vocabularies have a quarter of a million tokens and half a million merges."""

_MOST_ARRAYS = 1 << 16  # in arrays, in all
_MOST_NESTING = 8
_LONGEST_TEXT = 48 << 20  # a whole tokenizer.json is one
_WINDOW = 1 << 20  # bytes
_STRING, _ARRAY, _BOOL = 8, 9, 7

# Types with a fixed size: struct code and bytes. Files and the machines that are served are little-endian.
_SCALARS: dict[int, tuple[Any, int]] = {
    0: ("B", 1),
    1: ("b", 1),
    2: ("H", 2),
    3: ("h", 2),
    4: ("I", 4),
    5: ("i", 4),
    6: ("f", 4),
    _BOOL: ("?", 1),
    10: ("Q", 8),
    11: ("q", 8),
    12: ("d", 8),
}
_U64 = struct.Struct("<Q").unpack_from


class Texts(Sequence[str]):
    """Texts as a file has them, each behind its length. They become objects when they are looked at."""

    element = str

    def __init__(self, data: memoryview, starts: array[int]) -> None:
        """``starts``: of each text in the data, and one more, as if another text followed."""
        self._data = data
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[str]:
        data, starts = self._data, self._starts
        for index in range(len(starts) - 1):
            yield str(data[starts[index] : starts[index + 1] - 8], "utf-8")

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        chosen = range(len(self))[index]
        if isinstance(chosen, range):
            return [self[at] for at in chosen]
        return str(self._data[self._starts[chosen] : self._starts[chosen + 1] - 8], "utf-8")

    def __repr__(self) -> str:
        shown = ", ".join(repr(text[:40]) for text in self[:3])
        return f"[{shown}{', ...' if len(self) > 3 else ''}]"


class GgufHeader:
    """A reader from the start of a file on. Raises Corrupt, which names the file, for what does not fit it."""

    def __init__(self, path: Path, file: _core.InputFile) -> None:
        self._path = path
        self._file = file
        self._size = file.size
        self._window = memoryview(b"")
        self._begin = 0  # of the window
        self.at = 0
        self._arrays = 0

    def corrupt(self, problem: str) -> NoReturn:
        raise Corrupt(f"{self._path}: {problem}") from None

    def take(self, length: int) -> memoryview:
        """The next bytes."""
        begin, self.at = self.at, self.at + length
        if self.at > self._size:
            self.corrupt(f"ends at byte {self._size}, in the middle of its header")
        if not self._begin <= begin <= self.at <= self._begin + len(self._window):
            self._window = memoryview(b"")  # the old one goes before the new one comes
            self._window = self._file.part(begin, min(max(length, _WINDOW), self._size - begin)).read()
            self._begin = begin
        return self._window[begin - self._begin : self.at - self._begin]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def count(self, what: str, bytes_each: int) -> int:
        """A number of things that follow, each at least so many bytes long."""
        count = self.u64()
        if count > (self._size - self.at) // bytes_each:
            self.corrupt(f"claims {count} {what}, more than fit the {self._size} bytes of the file")
        return count

    def text(self, what: str) -> str:
        length = self.u64()
        if length > self._size - self.at:
            self.corrupt(f"{what} claims {length} bytes, beyond the end of the file")
        if length > _LONGEST_TEXT:
            self.corrupt(f"{what} has {length} bytes; at most {_LONGEST_TEXT} are possible")
        data = self.take(length)
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError:
            self.corrupt(f"{what} is not UTF-8: {bytes(data[:40])!r}")

    def value(self, key: str) -> Any:
        """A number, a text, true or false, or an array: numbers as a memoryview of their type, texts as ``Texts``,
        arrays as a list."""
        return self._value(self.u32(), key, 0)

    def _value(self, kind: int, key: str, nesting: int) -> Any:
        if kind == _STRING:
            return self.text(f"metadata '{key[:200]}'")
        if kind == _ARRAY:
            return self._array(key, nesting)
        if kind not in _SCALARS:
            self.corrupt(f"metadata '{key[:200]}' has the unknown type {kind}")
        number: Any = self._scalars(kind, 1, key)[0]
        return number

    def _array(self, key: str, nesting: int) -> Any:
        if nesting == _MOST_NESTING:
            self.corrupt(f"metadata '{key[:200]}' nests arrays more than {_MOST_NESTING} deep")
        kind = self.u32()
        smallest = _SCALARS[kind][1] if kind in _SCALARS else 8 if kind == _STRING else 12
        count = self.count(f"elements of metadata '{key[:200]}'", smallest)
        if kind in _SCALARS:
            return self._scalars(kind, count, key)
        if kind == _STRING:
            if count > MOST_TEXTS:
                self.corrupt(f"metadata '{key[:200]}' has {count} texts; at most {MOST_TEXTS} are possible")
            return self._texts(count, key)
        self._arrays += count
        if self._arrays > _MOST_ARRAYS:
            self.corrupt(f"has more than {_MOST_ARRAYS} arrays in arrays (metadata '{key[:200]}')")
        return [self._value(kind, key, nesting + 1) for _ in range(count)]

    def _scalars(self, kind: int, count: int, key: str) -> memoryview:
        code, size = _SCALARS[kind]
        data = self.take(count * size)
        if len(data) < _WINDOW:
            data = memoryview(bytes(data))  # a small one would keep the window
        if kind == _BOOL and data.tobytes().translate(None, b"\0\1"):
            self.corrupt(f"metadata '{key[:200]}' has a boolean that is neither 0 nor 1")
        return (data if count else memoryview(bytes(size))).cast(code)[:count]  # nothing cannot be cast

    def _texts(self, count: int, key: str) -> Texts:
        """The loop over a vocabulary: everything is local, since there are tens of thousands."""
        begin = self.at
        starts = array("Q")
        window, offset, end = self._window, self._begin, self._begin + len(self._window)
        at = begin
        try:
            for _ in range(count):
                start = at + 8
                if start > end:
                    self.at = at
                    self.take(8)
                    window, offset, end = self._window, self._begin, self._begin + len(self._window)
                length = _U64(window, at - offset)[0]
                at = start + length
                if at > end:
                    if at > self._size:
                        self.corrupt(f"a string of metadata '{key[:200]}' reaches beyond the end of the file")
                    self.at = start
                    self.take(length)
                    window, offset, end = self._window, self._begin, self._begin + len(self._window)
                str(window[start - offset : at - offset], "utf-8")
                starts.append(start - begin)
        except UnicodeDecodeError as error:
            self.corrupt(f"string {len(starts)} of metadata '{key[:200]}' is not UTF-8: {error.reason}")
        starts.append(at + 8 - begin)
        self.at = at
        return Texts(self._file.part(begin, at - begin).read() if at > begin else memoryview(b""), starts)
