"""Qwen3 (2025): norms over each head of q and k, heads of a size of their own. Its vocabulary is Qwen2's."""

from __future__ import annotations

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKVO, tiny_config

__all__ = ["FAMILY", "describe_gguf"]


def describe(config: Fields) -> Described:
    description = from_config.described(config.defaulting(num_key_value_heads=32, head_dim=128))
    description["qk_norm"] = True
    description["windows"] = from_config.windows_by_layer(config, description, default=4096)
    return Described(description, QKVO if config.flag("attention_bias", False) else ())


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    found = from_gguf.describe(fields, tensors)
    found.description["qk_norm"] = True
    return found


FAMILY = Family(
    name="qwen3",
    huggingface=HuggingFace(
        architectures=("Qwen3ForCausalLM",), model_type="qwen3", describe=describe, names=HUGGINGFACE_NAMES
    ),
    gguf=Gguf(architectures=("qwen3",), describe=describe_gguf, names=GGUF_NAMES),
    tiny_config=lambda: tiny_config("qwen3", head_dim=40),
)
