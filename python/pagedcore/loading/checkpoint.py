"""What every loader returns, and the names of a decoder's weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import Corrupt

__all__ = [
    "Checkpoint",
    "Tensor",
    "TokenizerSource",
    "check_description",
    "check_names",
    "expected_names",
    "source_dtype",
]


class Tensor(NamedTuple):
    """A weight as it lies on disk: ``dtype`` is a name of pagedcore's element types, ``buffer`` its bytes."""

    dtype: str
    shape: tuple[int, ...]
    buffer: Any


class TokenizerSource(NamedTuple):
    """Where the tokenizer's data are: the metadata of a GGUF file, or the directory with a ``tokenizer.json``."""

    kind: Literal["gguf", "directory"]
    metadata: Mapping[str, Any] | None = None
    path: Path | None = None


@dataclass
class Checkpoint:
    """An opened model. ``tensors`` maps canonical names (see ``WeightSource`` in ``pagedcore/model.hpp``) to tensors
    whose buffers keep their files mapped."""

    description: dict[str, Any]  # fields of ModelDescription; absent ones have its defaults
    tensors: dict[str, Tensor]
    source_dtype: str  # the element type of most weights; for a directory read without tensors, the configured one
    tokenizer: TokenizerSource | None
    name: str
    chat_template: str | None = None
    eos_token_ids: list[int] = field(default_factory=list)
    bos_token_id: int | None = None

    def close(self) -> None:
        """Drops the tensors. A file is unmapped when the last buffer that points into it is gone."""
        self.tensors = {}

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def source_dtype(tensors: Iterable[Tensor]) -> str:
    """The element type of most elements."""
    totals: dict[str, int] = {}
    for tensor in tensors:
        totals[tensor.dtype] = totals.get(tensor.dtype, 0) + math.prod(tensor.shape)
    return max(totals, key=lambda dtype: totals[dtype], default="f32")


def check_description(description: Mapping[str, Any], source: str) -> None:
    """Raises Corrupt for fields that contradict each other."""
    d = description
    if d["num_heads"] % d["num_kv_heads"]:
        raise Corrupt(f"{source}: {d['num_heads']} attention heads are not a multiple of {d['num_kv_heads']} KV heads")
    if d["head_dim"] % 2:
        raise Corrupt(f"{source}: a head of {d['head_dim']} dimensions cannot be rotated: it must be even")


def expected_names(description: Mapping[str, Any], biases: Iterable[str] = ()) -> Iterator[str]:
    """Canonical names of all weights; ``biases`` names the projections that have one, such as ``attn.q``."""
    yield "embed.weight"
    yield "final_norm.weight"
    if not description["tied_embeddings"]:
        yield "lm_head.weight"
    parts = ["attn_norm", "attn.q", "attn.k", "attn.v", "attn.o", "mlp_norm", "mlp.gate", "mlp.up", "mlp.down"]
    if description.get("qk_norm"):
        parts += ["attn.q_norm", "attn.k_norm"]
    suffixes = [f"{part}.weight" for part in parts] + [f"{part}.bias" for part in biases]
    for layer in range(description["num_layers"]):
        for suffix in suffixes:
            yield f"layers.{layer}.{suffix}"


def check_names(found: Mapping[str, Tensor], expected: Iterable[str], source: str) -> None:
    """Raises Corrupt for a weight that is missing or not expected."""
    wanted = set(expected)
    missing = sorted(wanted - found.keys())
    if missing:
        raise Corrupt(f"{source}: {len(missing)} weights are missing, the first is '{missing[0]}'")
    extra = sorted(found.keys() - wanted)
    if extra:
        raise Corrupt(f"{source}: {len(extra)} weights are not part of the described model, the first is '{extra[0]}'")
