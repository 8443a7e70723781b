"""GGUF files, versions 2 and 3: metadata and tensors where they lie.

Layout, all little-endian: magic, u32 version, u64 tensor count, u64 metadata count; the metadata (key, u32 type,
value); for each tensor its name, u32 rank, u64 extents with the innermost first, u32 type, u64 offset; padding to
general.alignment; the data. Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import _core
from ..errors import Unsupported
from ..families.tensors import Tensor
from .gguf_header import GgufHeader

__all__ = ["GgufFile"]

_MAX_RANK = 4
_MOST_ENTRIES = 1 << 16  # of metadata and tensors: published models have some thousand
_DEFAULT_ALIGNMENT = 32

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
    39: ("mxfp4", 32, 17),
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
}


class GgufFile:
    """Every count, offset and size is checked against the file before it is used. ``metadata``: by key, as
    ``GgufHeader.value`` gives them. ``tensors`` are not read: they keep the file open. With ``mmap`` they are mapped,
    which trusts whoever may write to the file."""

    def __init__(self, path: Path, *, mmap: bool = False) -> None:
        self.path = path
        self._file = _core.InputFile(str(path), mmap)
        self._size = self._file.size
        self._header = GgufHeader(path, self._file)
        self._corrupt = self._header.corrupt
        tensor_count, metadata_count = self._read_start()
        self.metadata = self._read_metadata(metadata_count)
        self.tensors = self._read_tensors(tensor_count)
        del self._header, self._corrupt  # which hold the window

    def _read_start(self) -> tuple[int, int]:
        header = self._header
        magic = bytes(header.take(4))
        if magic != b"GGUF":
            self._corrupt(f"is not a GGUF file: it begins with {magic!r}")
        version = header.u32()
        if version not in (2, 3):
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3)
            shown = "big-endian" if swapped else f"version {version}"
            raise Unsupported(f"{self.path}: is {shown} GGUF; supported are versions 2 and 3, little-endian")
        # A tensor's entry is a name, rank, type and offset at least; metadata a key, a type and a value.
        counts = header.count("tensors", 8 + 4 + 4 + 8), header.count("metadata entries", 8 + 4 + 1)
        if max(counts) > _MOST_ENTRIES:
            self._corrupt(f"has {max(counts)} tensors or metadata entries; at most {_MOST_ENTRIES} are possible")
        return counts

    def _read_metadata(self, count: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for _ in range(count):
            key = self._header.text("a metadata key")
            if key in metadata:
                self._corrupt(f"the metadata key '{key[:200]}' occurs twice")
            metadata[key] = self._header.value(key)
        return metadata

    def _read_tensors(self, count: int) -> dict[str, Tensor]:
        entries = {}
        for _ in range(count):
            name = self._header.text("a tensor name")
            if name in entries:
                self._corrupt(f"the tensor '{name[:200]}' occurs twice")
            entries[name] = self._tensor_entry(name)
        alignment = self.metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            self._corrupt(f"general.alignment = {alignment!r} is not a power of two up to {1 << 20}")
        start = -(-self._header.at // alignment) * alignment
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
        rank = self._header.u32()
        if not 1 <= rank <= _MAX_RANK:
            self._corrupt(f"tensor '{shown}' has {rank} dimensions; 1 to {_MAX_RANK} are possible")
        shape = tuple(self._header.u64() for _ in range(rank))[::-1]
        kind = self._header.u32()
        offset = self._header.u64()
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
