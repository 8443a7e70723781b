"""Gemma 2 (2024): norms before and after attention and MLP, capped scores and logits, a window in every other layer."""

from __future__ import annotations

from typing import Any

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .gemma import described, described_gguf
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKVO, tiny_config
from .rope import to_f32

__all__ = ["FAMILY", "GGUF_NAMES", "HUGGINGFACE_NAMES", "capped", "scale_of_gguf"]

_NORMS = {
    "post_attention_layernorm": "attn_post_norm",
    "pre_feedforward_layernorm": "mlp_norm",
    "post_feedforward_layernorm": "mlp_post_norm",
}
HUGGINGFACE_NAMES = HUGGINGFACE_NAMES.changed(in_layer=_NORMS)


def capped(config: Fields, names: tuple[str, str], defaults: tuple[float, float]) -> dict[str, float]:
    """Of attention scores and logits; null: none. The names are the format's."""
    fields = ("attention_softcap", "logit_softcap")
    return {
        field: 0.0 if name in config and config.get(name) is None else to_f32(config.number(name, default))
        for field, name, default in zip(fields, names, defaults, strict=True)
    }


def scale_of_gguf(description: dict[str, Any], layers_of_27b: int) -> float:
    """Files do not say; the largest model divides by the root of other sizes than all others do."""
    is_largest = description["num_layers"] == layers_of_27b
    size = description["hidden_size"] // description["num_heads"] if is_largest else description["head_dim"]
    return to_f32(size**-0.5)


def describe(config: Fields) -> Described:
    config = config.renamed(hidden_act="hidden_activation")
    description = described(config.defaulting(max_position_embeddings=8192))
    description |= capped(config, ("attn_logit_softcapping", "final_logit_softcapping"), (50.0, 30.0))
    description["norm_place"] = "both"
    description["attention_scale"] = to_f32(config.number("query_pre_attn_scalar", 256.0, above=0.0) ** -0.5)
    slides = [layer % 2 == 0 for layer in range(description["num_layers"])]
    description["windows"] = from_config.windows_of_types(config, description, 4096, slides)
    return Described(description, QKVO if config.flag("attention_bias", False) else ())


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    description = described_gguf(fields, tensors)
    description |= capped(fields, ("attn_logit_softcapping", "final_logit_softcapping"), (50.0, 30.0))
    description["norm_place"] = "both"
    description["attention_scale"] = scale_of_gguf(description, 46)
    description["windows"] = from_gguf.windows(fields, description, 2)
    return Described(description)


FAMILY = Family(
    name="gemma2",
    huggingface=HuggingFace(
        architectures=("Gemma2ForCausalLM",), model_type="gemma2", describe=describe, names=HUGGINGFACE_NAMES
    ),
    gguf=Gguf(architectures=("gemma2",), describe=describe_gguf, names=GGUF_NAMES),
    tiny_config=lambda: tiny_config(
        "gemma2", head_dim=32, query_pre_attn_scalar=32, sliding_window=24, tie_word_embeddings=True
    ),
    odd={
        **{"hidden_size": 72, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 40},
        **{"query_pre_attn_scalar": 40, "attn_logit_softcapping": 9.0, "final_logit_softcapping": 20.0},
    },
)
