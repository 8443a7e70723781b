"""GGUF files, versions 2 and 3: metadata and tensors where they lie.

Layout, all little-endian: magic, u32 version, u64 tensor count, u64 metadata count; the metadata (key, u32 type,
value); for each tensor its name, u32 rank, u64 extents with the innermost first, u32 type, u64 offset; padding to
general.alignment; the data. Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NoReturn

from .. import _core
from ..errors import Corrupt, Unsupported
from ..families.tensors import Tensor

__all__ = ["GgufFile"]

_MAX_RANK = 4
_MAX_NESTING = 8
_DEFAULT_ALIGNMENT = 32
_PIECE = 1 << 20  # bytes of the header that are read at a time
_STRING, _ARRAY, _BOOL = 8, 9, 7

# Metadata types with a fixed size: struct code and bytes.
_SCALARS = {
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

# Tensor types: name, elements and bytes of a block.
_TENSOR_TYPES = {
    0: ("f32", 1, 4),
    1: ("f16", 1, 2),
    2: ("q4_0", 32, 18),
    3: ("q4_1", 32, 20),
    6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24),
    8: ("q8_0", 32, 34),
    10: ("q2_k", 256, 84),
    11: ("q3_k", 256, 110),
    12: ("q4_k", 256, 144),
    13: ("q5_k", 256, 176),
    14: ("q6_k", 256, 210),
    24: ("i8", 1, 1),
    25: ("i16", 1, 2),
    26: ("i32", 1, 4),
    27: ("i64", 1, 8),
    28: ("f64", 1, 8),
    30: ("bf16", 1, 2),
}
_OTHER_TENSOR_TYPES = {
    9: "q8_1",
    15: "q8_k",
    16: "iq2_xxs",
    17: "iq2_xs",
    18: "iq3_xxs",
    19: "iq1_s",
    20: "iq4_nl",
    21: "iq3_s",
    22: "iq2_s",
    23: "iq4_xs",
    29: "iq1_m",
    34: "tq1_0",
    35: "tq2_0",
    39: "mxfp4",
}

_U32 = struct.Struct("<I").unpack_from
_U64 = struct.Struct("<Q").unpack_from


class GgufFile:
    """Every count, offset and size is checked against the file before it is used. ``tensors`` are not read: they keep
    the file open. With ``mmap`` they are mapped, which trusts whoever may write to the file."""

    def __init__(self, path: Path, *, mmap: bool = False) -> None:
        self.path = path
        self._file = _core.InputFile(str(path), mmap)
        self._size = self._file.size
        self._data = bytearray()  # the beginning of the file, as far as it was wanted
        self._at = 0
        try:
            tensor_count, metadata_count = self._read_start()
            self.metadata = self._read_metadata(metadata_count)
            self.tensors = self._read_tensors(tensor_count)
        except struct.error:
            self._corrupt(f"ends at byte {self._size}, in the middle of its header")
        del self._data

    def _corrupt(self, problem: str) -> NoReturn:
        raise Corrupt(f"{self.path}: {problem}") from None

    def _fill(self, end: int) -> int:
        """Has the file up to ``end`` in memory, or all of it, and returns how much that is."""
        have = len(self._data)
        if end > have:
            self._data += self._file.part(have, min(max(end - have, _PIECE), self._size - have)).read()
        return len(self._data)

    def _u32(self) -> int:
        at, self._at = self._at, self._at + 4
        self._fill(self._at)
        value: int = _U32(self._data, at)[0]
        return value

    def _u64(self) -> int:
        at, self._at = self._at, self._at + 8
        self._fill(self._at)
        value: int = _U64(self._data, at)[0]
        return value

    def _count(self, what: str, bytes_each: int) -> int:
        """A number of things that follow, each at least so many bytes long."""
        count = self._u64()
        if count > (self._size - self._at) // bytes_each:
            self._corrupt(f"claims {count} {what}, more than fit the {self._size} bytes of the file")
        return count

    def _string(self, what: str) -> str:
        length = self._u64()
        end = self._at + length
        if end > self._size:
            self._corrupt(f"{what} claims {length} bytes, beyond the end of the file")
        self._fill(end)
        text, self._at = self._data[self._at : end], end
        try:
            return str(text, "utf-8")
        except UnicodeDecodeError:
            self._corrupt(f"{what} is not UTF-8: {bytes(text[:40])!r}")

    def _read_start(self) -> tuple[int, int]:
        self._fill(4)
        if self._data[:4] != b"GGUF":
            self._corrupt(f"is not a GGUF file: it begins with {bytes(self._data[:4])!r}")
        self._at = 4
        version = self._u32()
        if version not in (2, 3):
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3)
            shown = "big-endian" if swapped else f"version {version}"
            raise Unsupported(f"{self.path}: is {shown} GGUF; supported are versions 2 and 3, little-endian")
        # A tensor's entry is a name, rank, type and offset at least; metadata a key, a type and a value.
        tensor_count = self._count("tensors", 8 + 4 + 4 + 8)
        return tensor_count, self._count("metadata entries", 8 + 4 + 1)

    def _read_metadata(self, count: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for _ in range(count):
            key = self._string("a metadata key")
            if key in metadata:
                self._corrupt(f"the metadata key '{key[:200]}' occurs twice")
            metadata[key] = self._value(self._u32(), key, 0)
        return metadata

    def _value(self, kind: int, key: str, nesting: int) -> Any:
        if kind == _STRING:
            return self._string(f"metadata '{key[:200]}'")
        if kind == _ARRAY:
            return self._array(key, nesting)
        if kind not in _SCALARS:
            self._corrupt(f"metadata '{key[:200]}' has the unknown type {kind}")
        return self._scalars(kind, 1, key)[0]

    def _array(self, key: str, nesting: int) -> list[Any]:
        if nesting == _MAX_NESTING:
            self._corrupt(f"metadata '{key[:200]}' nests arrays more than {_MAX_NESTING} deep")
        kind = self._u32()
        smallest = _SCALARS[kind][1] if kind in _SCALARS else 8 if kind == _STRING else 12
        count = self._count(f"elements of metadata '{key[:200]}'", smallest)
        if kind == _STRING:
            return self._strings(count, key)
        if kind in _SCALARS:
            return list(self._scalars(kind, count, key))
        return [self._value(kind, key, nesting + 1) for _ in range(count)]

    def _scalars(self, kind: int, count: int, key: str) -> tuple[Any, ...]:
        code, size = _SCALARS[kind]
        at, self._at = self._at, self._at + count * size
        self._fill(self._at)
        if kind == _BOOL and max(self._data[at : self._at], default=0) > 1:
            self._corrupt(f"metadata '{key[:200]}' has a boolean that is neither 0 nor 1")
        return struct.unpack_from(f"<{count}{code}", self._data, at)

    def _strings(self, count: int, key: str) -> list[str]:
        """The loop over a vocabulary: everything is local, since there are tens of thousands."""
        data, at, end = self._data, self._at, len(self._data)
        strings = []
        try:
            for _ in range(count):
                start = at + 8
                if start > end:
                    end = self._fill(start)
                at = start + _U64(data, at)[0]
                if at > end:
                    if at > self._size:
                        self._corrupt(f"a string of metadata '{key[:200]}' reaches beyond the end of the file")
                    end = self._fill(at)
                strings.append(str(data[start:at], "utf-8"))
        except UnicodeDecodeError as error:
            self._corrupt(f"string {len(strings)} of metadata '{key[:200]}' is not UTF-8: {error.reason}")
        self._at = at
        return strings

    def _read_tensors(self, count: int) -> dict[str, Tensor]:
        entries = {}
        for _ in range(count):
            name = self._string("a tensor name")
            if name in entries:
                self._corrupt(f"the tensor '{name[:200]}' occurs twice")
            entries[name] = self._tensor_entry(name)
        alignment = self.metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            self._corrupt(f"general.alignment = {alignment!r} is not a power of two up to {1 << 20}")
        start = -(-self._at // alignment) * alignment
        tensors = {}
        end = 0
        by_offset = sorted(entries.items(), key=lambda entry: entry[1][2])
        for name, (dtype, shape, offset, size) in by_offset:
            if offset % alignment:
                self._corrupt(f"tensor '{name[:200]}' has the offset {offset}, not a multiple of {alignment}")
            if start + offset + size > self._size:
                self._corrupt(
                    f"tensor '{name[:200]}' ends at byte {start + offset + size}, beyond the end of the file at "
                    f"{self._size}: truncated?"
                )
            if offset < end:
                self._corrupt(f"tensor '{name[:200]}' at offset {offset} overlaps the one that ends at {end}")
            end = offset + size
            tensors[name] = Tensor(dtype, shape, self._file.part(start + offset, size))
        return tensors

    def _tensor_entry(self, name: str) -> tuple[str, tuple[int, ...], int, int]:
        """(dtype, shape, offset, bytes)"""
        shown = name[:200]
        rank = self._u32()
        if not 1 <= rank <= _MAX_RANK:
            self._corrupt(f"tensor '{shown}' has {rank} dimensions; 1 to {_MAX_RANK} are possible")
        shape = tuple(self._u64() for _ in range(rank))[::-1]
        kind = self._u32()
        offset = self._u64()
        if kind not in _TENSOR_TYPES:
            known = ", ".join(entry[0] for entry in _TENSOR_TYPES.values())
            if kind in _OTHER_TENSOR_TYPES:
                raise Unsupported(
                    f"{self.path}: tensor '{shown}' has the type {_OTHER_TENSOR_TYPES[kind]}; supported are {known}"
                )
            self._corrupt(f"tensor '{shown}' has the unknown type {kind}")
        dtype, block, block_bytes = _TENSOR_TYPES[kind]
        count = 1
        for extent in shape:
            count *= extent
        # Python's integers do not overflow; those of the native library would.
        if not 0 < count < 1 << 57:
            self._corrupt(f"tensor '{shown}' has the impossible shape {shape}")
        if shape[-1] % block:
            self._corrupt(
                f"tensor '{shown}' has rows of {shape[-1]} elements, no multiple of {dtype}'s block of {block}"
            )
        return dtype, shape, offset, count // block * block_bytes
