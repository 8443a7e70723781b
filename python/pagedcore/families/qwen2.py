"""Qwen2 and Qwen2.5 (2024): biases of q, k and v, and windows in the layers that ask for them."""

from __future__ import annotations

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKV, tiny_config
from .splits import APART, Split, words

__all__ = ["FAMILY"]


def describe(config: Fields) -> Described:
    description = from_config.described(config.defaulting(num_key_value_heads=32))
    description["windows"] = from_config.windows_by_layer(config, description, default=4096)
    return Described(description, QKV)


_SPLIT = Split((words(APART),), nfc=True)
FAMILY = Family(
    name="qwen2",
    huggingface=HuggingFace(
        architectures=("Qwen2ForCausalLM",), model_type="qwen2", describe=describe, names=HUGGINGFACE_NAMES
    ),
    gguf=Gguf(architectures=("qwen2",), describe=from_gguf.describe, names=GGUF_NAMES),
    tiny_config=lambda: tiny_config("qwen2"),
    splits=dict.fromkeys(("qwen2", "deepseek-r1-qwen", "f2llmv2"), _SPLIT),
)
