"""Memory sizes as people write them, and the table of a memory plan."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .arguments import shown
from .errors import InvalidArgument

if TYPE_CHECKING:
    from . import _core

__all__ = ["MemoryReport", "format_bytes", "parse_bytes"]

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGTPE", start=1):
    _UNITS[f"{_letter}B"] = _UNITS[_letter] = 1000**_power
    _UNITS[f"{_letter}IB"] = 1024**_power


def parse_bytes(value: int | str) -> int:
    """``1048576``, ``"512MB"`` (10^6) or ``"1.5 GiB"`` (2^30) as a number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value) if isinstance(value, str) else None
        if match is None or match[2].upper() not in _UNITS:
            raise InvalidArgument(f"{shown(value)} is not a size: give bytes, or a text such as '512MB' or '1.5GiB'")
        size = int(min(float(match[1]) * _UNITS[match[2].upper()], 2.0**63))
    if not 0 < size < 2**63:
        raise InvalidArgument(f"a size of {shown(value)} is outside 1 byte to 8 EiB")
    return size


def format_bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


@dataclass(frozen=True)
class MemoryReport:
    """Every byte that an engine holds, by purpose: arithmetic, known before anything is allocated."""

    weights: int
    native_weights: int
    """Bytes of the weights that are kept in a block format, of their file or by weights="int8" or "int4"."""
    activations: int
    kv_block: int
    """Bytes of one block, the layers of one group."""
    num_blocks: int
    block_size: int
    """Tokens per block."""
    max_context: int
    """Tokens that one sequence may have."""
    swap: int = 0
    """Host memory of the swap space."""
    swap_file: int = 0
    """Bytes of the swap file; not memory."""
    num_swap_blocks: int = 0
    """Blocks that both hold together."""
    requests: int = 0
    """Host memory that requests may take together, apart from their KV: taken as they need it."""
    integer_weights: int = 0
    """Bytes of the native weights whose products are in integers (dtype="int8")."""
    store: int = 0
    """Host memory of kv_store: blocks on their way, and the index."""
    dense_weights: int = 0
    """Bytes of the matrices in the compute type; norms and biases are the rest."""
    windows: tuple[int, ...] | list[int] = (0,)
    """Attention window of each layer group, 0: full context. A token takes a token slot in a block of each."""
    rank_weights: tuple[int, ...] | list[int] = ()
    """Of the weights, those of each rank (tensor_parallel)."""
    rank_activations: tuple[int, ...] | list[int] = ()
    rank_kv_block: tuple[int, ...] | list[int] = ()

    @classmethod
    def from_native(cls, plan: _core.MemoryPlan) -> MemoryReport:
        return cls(**plan.to_dict())

    @property
    def kv_cache(self) -> int:
        return self.kv_block * self.num_blocks

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.kv_cache + self.swap + self.store + self.requests

    @property
    def kv_tokens(self) -> int:
        """Tokens whose KV fits at once, if no window frees any of it."""
        return self.num_blocks // max(1, len(self.windows)) * self.block_size

    @property
    def full_contexts(self) -> int:
        """Sequences of max_context tokens that fit at once."""
        blocks = -(-self.max_context // self.block_size) * max(1, len(self.windows))
        return self.num_blocks // blocks if self.max_context else 0

    def _kept(self) -> str:
        if not self.native_weights:
            return ""
        products = f", {format_bytes(self.integer_weights)} multiplied in int8" if self.integer_weights else ""
        return f"{format_bytes(self.native_weights)} in block formats{products}"

    def _ranks(self) -> list[tuple[str, str, str]]:
        """Of several, a line each."""
        if len(self.rank_weights) < 2:
            return []
        parts = zip(self.rank_weights, self.rank_activations, self.rank_kv_block, strict=True)
        return [
            (
                f"rank {rank}",
                format_bytes(weights + activations + block * self.num_blocks),
                f"weights {format_bytes(weights)}, activations {format_bytes(activations)}, "
                f"KV cache {format_bytes(block * self.num_blocks)}",
            )
            for rank, (weights, activations, block) in enumerate(parts)
        ]

    def to_dict(self) -> dict[str, Any]:
        derived = ("kv_cache", "total", "kv_tokens", "full_contexts")
        return asdict(self) | {name: getattr(self, name) for name in derived}

    def __str__(self) -> str:
        per_token = self.kv_block * max(1, len(self.windows)) / self.block_size if self.block_size else 0
        rows = [
            (
                "weights",
                format_bytes(self.weights),
                self._kept(),
            ),
            ("activations", format_bytes(self.activations), ""),
            (
                "KV cache",
                format_bytes(self.kv_cache),
                f"{self.num_blocks:,} blocks of {self.block_size} tokens, {format_bytes(per_token)} per token",
            ),
            *(
                [("swap space", format_bytes(self.swap), f"{self.num_swap_blocks:,} blocks with the file's")]
                if self.swap
                else []
            ),
            *([("KV store", format_bytes(self.store), "blocks on their way, and its index")] if self.store else []),
            ("requests", format_bytes(self.requests), "at most: prompts, outputs, log-probabilities"),
            ("total", format_bytes(self.total), ""),
            *self._ranks(),
            ("", "", ""),
            ("tokens that fit", f"{self.kv_tokens:,}", ""),
            ("full contexts", f"{self.full_contexts:,}", f"of {self.max_context:,} tokens each"),
        ]
        return "\n".join(f"{name:<16}{value:>12}  {note}".rstrip() for name, value, note in rows)
