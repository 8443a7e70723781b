"""Granite 3 (2024), dense: LLaMA whose embeddings, scores, branches and logits are scaled."""

from __future__ import annotations

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama import NEIGHBOURS
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, MLP, QKVO, tiny_config
from .rope import to_f32

__all__ = ["FAMILY", "HUGGINGFACE_SCALES", "describe_gguf", "scales"]

HUGGINGFACE_SCALES = ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling")
_GGUF = ("embedding_scale", "residual_scale", "attention.scale", "logit_scale")


def scales(fields: Fields, names: tuple[str, ...]) -> dict[str, float]:
    """Logits are divided."""
    embedding, residual, attention, logits = (fields.number(name, 1.0, above=0.0) for name in names)
    return {
        "embedding_scale": to_f32(embedding),
        "residual_scale": to_f32(residual),
        "attention_scale": to_f32(attention),
        "logit_scale": to_f32(1.0 / logits),
    }


def describe(config: Fields) -> Described:
    description = from_config.described(config.defaulting(max_position_embeddings=2048))
    attention = QKVO if config.flag("attention_bias", False) else ()
    mlp = MLP if config.flag("mlp_bias", False) else ()
    return Described(description | scales(config, HUGGINGFACE_SCALES), (*attention, *mlp))


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    found = from_gguf.describe(fields, tensors)
    return Described(found.description | scales(fields, _GGUF), found.biases)


FAMILY = Family(
    name="granite",
    huggingface=HuggingFace(
        architectures=("GraniteForCausalLM",), model_type="granite", describe=describe, names=HUGGINGFACE_NAMES
    ),
    gguf=Gguf(architectures=("granite",), describe=describe_gguf, names=GGUF_NAMES, transforms=NEIGHBOURS),
    tiny_config=lambda: tiny_config(
        "granite",
        **{"embedding_multiplier": 6.0, "residual_multiplier": 0.3, "attention_multiplier": 0.2, "logits_scaling": 4.0},
    ),
    odd={"hidden_size": 102, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 100},
)
