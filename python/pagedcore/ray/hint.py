"""What a front says of a call's prompt to its router."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from ..routing import Arriving, chain_hashes

__all__ = ["Hint"]

_MOST_TOKENS = 1 << 20


@dataclass(frozen=True)
class Hint:
    tokens: int
    chain: bytes = b""
    """Hashes of its blocks, 8 bytes each."""

    @classmethod
    def of(cls, token_ids: list[int], block_size: int) -> Hint:
        chain = chain_hashes(token_ids[:_MOST_TOKENS], block_size)
        return cls(len(token_ids), array("Q", chain).tobytes())

    def arriving(self) -> Arriving:
        return Arriving(max(self.tokens, 1), array("Q", self.chain))
