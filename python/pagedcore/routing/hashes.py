"""The hash of a block of tokens together with all blocks before it: what KV events call a block by.

vLLM's events have such hashes in the same place; their values are anybody's own. Ours are the first 8 bytes, the
highest first, of SHA-256 over the 8 bytes of the hash before (0 at the beginning) and 4 bytes of each token.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256

__all__ = ["block_hash", "chain_hashes"]


def block_hash(parent: int, tokens: Sequence[int]) -> int:
    """``parent``: the hash of the block before, 0 at the beginning of a prompt."""
    return int.from_bytes(sha256(struct.pack(f">Q{len(tokens)}I", parent, *tokens)).digest()[:8], "big")


def chain_hashes(tokens: Sequence[int], block_size: int) -> list[int]:
    """Of every full block of a prompt, in order. As the last token is always computed, the block that it would fill
    is not counted where the prompt ends with it."""
    packed = struct.pack(f">{len(tokens)}I", *tokens)
    size = 4 * block_size
    hashes = []
    before = bytes(8)
    for start in range(0, 4 * (len(tokens) - 1) - size + 1, size):
        before = sha256(before + packed[start : start + size]).digest()[:8]
        hashes.append(int.from_bytes(before, "big"))
    return hashes
