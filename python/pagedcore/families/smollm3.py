"""SmolLM3 (2025): LLaMA whose every fourth layer rotates nothing."""

from __future__ import annotations

from typing import Any

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama import NEIGHBOURS
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, MLP, QKVO, tiny_config

__all__ = ["FAMILY"]


def describe(config: Fields) -> Described:
    defaults: dict[str, Any] = {"num_key_value_heads": 4, "rope_theta": 2000000.0, "tie_word_embeddings": True}
    description = from_config.described(config.defaulting(**defaults))
    description["windows"] = from_config.windows_by_layer(config, description, default=4096)
    num_layers = description["num_layers"]
    every = config.integer("no_rope_layer_interval", 4)
    rotates = config.get("no_rope_layers") or [int((layer + 1) % every != 0) for layer in range(num_layers)]
    if not isinstance(rotates, list) or len(rotates) != num_layers or not all(flag in (0, 1) for flag in rotates):
        raise config.refuse("no_rope_layers", f"is not a list of {num_layers} times 0 or 1")
    description["rope_layers"] = [int(flag) - 1 for flag in rotates]
    attention = QKVO if config.flag("attention_bias", False) else ()
    return Described(description, (*attention, *(MLP if config.flag("mlp_bias", False) else ())))


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    found = from_gguf.describe(fields, tensors)
    found.description["rope_layers"] = [
        0 if (layer + 1) % 4 else -1 for layer in range(found.description["num_layers"])
    ]
    return found


FAMILY = Family(
    name="smollm3",
    huggingface=HuggingFace(
        architectures=("SmolLM3ForCausalLM",), model_type="smollm3", describe=describe, names=HUGGINGFACE_NAMES
    ),
    gguf=Gguf(architectures=("smollm3",), describe=describe_gguf, names=GGUF_NAMES, transforms=NEIGHBOURS),
    tiny_config=lambda: tiny_config("smollm3", num_hidden_layers=5, pad_token_id=0),
    odd={"hidden_size": 102, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 100},
)
