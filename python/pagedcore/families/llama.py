"""LLaMA (Touvron et al., 2023) 1 to 3, and the many that are one under another name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import Corrupt
from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, MLP, QKVO, tiny_config
from .splits import LLAMA3, Split
from .tensors import Tensor

__all__ = ["FAMILY", "GGUF"]


def describe(config: Fields) -> Described:
    attention = QKVO if config.flag("attention_bias", False) else ()
    mlp = MLP if config.flag("mlp_bias", False) else ()
    return Described(from_config.described(config, max_context=2048), (*attention, *mlp))


def split_halves(tensor: Tensor, description: Mapping[str, Any], source: str, *, heads: str) -> Tensor:
    """GGUF files of this architecture interleave the two halves of a head, as their runtime rotates neighbours: row
    2 i + j of a head is row i of half j. Whole rows move, so block formats need no decoding."""
    import numpy as np

    rows, num_heads, head_dim = tensor.shape[0], description[heads], description["head_dim"]
    if rows != num_heads * head_dim:
        raise Corrupt(f"{source} has {rows} rows, not {num_heads} heads of {head_dim} dimensions")
    pairs = np.frombuffer(tensor.read(), dtype=np.uint8).reshape(num_heads, head_dim // 2, 2, -1)
    return tensor._replace(buffer=memoryview(pairs.swapaxes(1, 2).reshape(-1)))


GGUF = Gguf(
    architectures=("llama",),
    describe=from_gguf.describe,
    names=GGUF_NAMES,
    transforms={
        "attn.q": lambda tensor, description, source: split_halves(tensor, description, source, heads="num_heads"),
        "attn.k": lambda tensor, description, source: split_halves(tensor, description, source, heads="num_kv_heads"),
    },
)
FAMILY = Family(
    name="llama",
    huggingface=HuggingFace(
        architectures=("LlamaForCausalLM",), model_type="llama", describe=describe, names=HUGGINGFACE_NAMES
    ),
    gguf=GGUF,
    tiny_config=lambda: tiny_config("llama"),
    splits=dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "midm-2.0"), LLAMA3)
    | {"smaug-bpe": Split(LLAMA3.patterns)},
)
