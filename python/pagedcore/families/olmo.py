"""OLMo (Groeneveld et al., 2024), the first: LLaMA with layer norms that have no weights."""

from __future__ import annotations

from typing import Any

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama import NEIGHBOURS
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKVO, tiny_config

__all__ = ["FAMILY"]


def _finish(description: dict[str, Any], biases: tuple[str, ...]) -> Described:
    return Described(description | {"norm_weights": False, "norm_eps": 1e-5}, biases)


def describe(config: Fields) -> Described:
    if config.get("clip_qkv") is not None:
        raise config.unsupported("clip_qkv", ("null",))
    description = from_config.described(config.defaulting(max_position_embeddings=2048), norm="layer")
    return _finish(description, QKVO if config.flag("attention_bias", False) else ())


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    if fields.number("attention.clamp_kqv", 0.0) != 0.0:
        raise fields.unsupported("attention.clamp_kqv", ("0",))
    return _finish(from_gguf.described(fields, tensors, norm="layer"), from_gguf.biases(tensors, QKVO))


FAMILY = Family(
    name="olmo",
    huggingface=HuggingFace(
        architectures=("OlmoForCausalLM",), model_type="olmo", describe=describe, names=HUGGINGFACE_NAMES
    ),
    gguf=Gguf(architectures=("olmo",), describe=describe_gguf, names=GGUF_NAMES, transforms=NEIGHBOURS),
    tiny_config=lambda: tiny_config("olmo", pad_token_id=0),
    odd={"hidden_size": 102, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 100},
)
