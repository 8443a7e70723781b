"""Gemma (2024): LLaMA with norms that multiply by 1 + weight, scaled embeddings and tanh GELU. Files in GGUF hold
1 + weight."""

from __future__ import annotations

from typing import Any

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKVO, tiny_config
from .rope import to_f32

__all__ = ["FAMILY", "described", "described_gguf"]


def described(config: Fields, *, rotates: bool = True) -> dict[str, Any]:
    """What all Gemmas have in common."""
    config = config.defaulting(head_dim=256, hidden_act="gelu_pytorch_tanh", tie_word_embeddings=True)
    description = from_config.described(config, rotates=rotates)
    description["norm_weight_offset"] = 1.0
    description["embedding_scale"] = to_f32(description["hidden_size"] ** 0.5)
    return description


def described_gguf(fields: Fields, tensors: Tensors) -> dict[str, Any]:
    description = from_gguf.described(fields, tensors, activation="gelu_tanh")
    description["embedding_scale"] = to_f32(description["hidden_size"] ** 0.5)
    return description


def describe(config: Fields) -> Described:
    description = described(config.defaulting(max_position_embeddings=8192))
    if description["activation"] == "gelu":
        description["activation"] = "gelu_tanh"  # what the first configurations meant
    return Described(description, QKVO if config.flag("attention_bias", False) else ())


FAMILY = Family(
    name="gemma",
    huggingface=HuggingFace(
        architectures=("GemmaForCausalLM",), model_type="gemma", describe=describe, names=HUGGINGFACE_NAMES
    ),
    gguf=Gguf(
        architectures=("gemma",),
        describe=lambda fields, tensors: Described(described_gguf(fields, tensors)),
        names=GGUF_NAMES,
    ),
    tiny_config=lambda: tiny_config("gemma", head_dim=32, tie_word_embeddings=True),
    odd={"hidden_size": 72, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 40},
)
