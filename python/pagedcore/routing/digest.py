"""What a replica says of its prefix cache: hashes of chains of blocks, as many as fit into a report."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

from ..checks import check_int
from ..errors import InvalidArgument
from .hashes import block_hash

__all__ = ["MOST_HASHES", "PrefixDigest", "PrefixTracker"]

MOST_HASHES = 2048
"""Of one report: 16 KiB."""


@dataclass(frozen=True)
class PrefixDigest:
    """The cached chains that are a multiple of `stride` blocks long."""

    block_size: int
    """Tokens."""
    stride: int
    """A power of two."""
    hashes: bytes
    """8 bytes each, in the machine's order; chains in any order."""

    def __post_init__(self) -> None:
        check_int("block_size", self.block_size, 1, 1 << 16)
        check_int("stride", self.stride, 1, 1 << 30)
        if not isinstance(self.hashes, bytes) or len(self.hashes) % 8:
            raise InvalidArgument("hashes of a digest are bytes, 8 for each")

    def values(self) -> array[int]:
        return array("Q", self.hashes)

    def to_dict(self) -> dict[str, Any]:
        return {"block_size": self.block_size, "stride": self.stride, "hashes": self.hashes}


class PrefixTracker:
    """Follows the events of one engine's prefix cache (:class:`CacheEvent`). Blocks of tenants with a salt of their own
    stay between the tenant and the engine, as in KV events. Not thread-safe."""

    def __init__(self, block_size: int, most_hashes: int = MOST_HASHES) -> None:
        check_int("block_size", block_size, 1, 1 << 16)
        check_int("most_hashes", most_hashes, 1, 1 << 20)
        self._block_size = block_size
        self._most = most_hashes
        self._blocks: dict[int, tuple[int, int]] = {}
        """Hash and length of the chain, in blocks, by the engine's id of the block."""
        self._levels: list[dict[int, int]] = []
        """By how often 2 divides the length: the chains, and how many blocks end them."""

    def __len__(self) -> int:
        return len(self._blocks)

    def take(self, events: list[Any]) -> None:
        for event in events:
            if event.kind == "stored":
                self._store(event)
            elif event.kind == "removed":
                self._remove(event.id)
            else:
                self._blocks.clear()
                self._levels.clear()

    def _store(self, event: Any) -> None:
        tokens = event.tokens
        before = self._blocks.get(event.parent) if event.parent else (0, 0)
        if event.salt or before is None or len(tokens) != self._block_size:
            return
        length = before[1] + 1
        hash = block_hash(before[0], tokens)
        self._blocks[event.id] = hash, length
        level = _twos(length)
        while len(self._levels) <= level:
            self._levels.append({})
        chains = self._levels[level]
        chains[hash] = chains.get(hash, 0) + 1

    def _remove(self, id: int) -> None:
        found = self._blocks.pop(id, None)
        if found is None:
            return
        chains = self._levels[_twos(found[1])]
        chains[found[0]] -= 1
        if not chains[found[0]]:
            del chains[found[0]]

    def digest(self) -> PrefixDigest:
        """With the smallest stride that a report has room for. Where even the longest stride has too many chains, the
        latest are taken."""
        levels = self._levels
        left = sum(map(len, levels))
        lowest = 0
        while left > self._most and lowest + 1 < len(levels):
            left -= len(levels[lowest])
            lowest += 1
        hashes = [hash for chains in levels[lowest:] for hash in chains]
        return PrefixDigest(self._block_size, 1 << lowest, array("Q", hashes[-self._most :]).tobytes())


def _twos(length: int) -> int:
    return (length & -length).bit_length() - 1
