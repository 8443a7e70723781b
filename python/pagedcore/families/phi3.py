"""Phi-3 and Phi-4 (2024): LLaMA with q, k, v in one weight and gate, up in another; a part of each head may be rotated,
with factors for long contexts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, tiny_config
from .transforms import fused_qkv, split_rows

__all__ = ["FAMILY", "GATE_UP"]


def _gate_up_rows(description: Mapping[str, Any]) -> dict[str, int]:
    return dict.fromkeys(("mlp.gate", "mlp.up"), description["intermediate_size"])


GATE_UP = split_rows(_gate_up_rows)
_TRANSFORMS = {"attn.qkv": fused_qkv, "mlp.gate_up": GATE_UP}


def describe(config: Fields) -> Described:
    scaling = config.get("rope_scaling")
    if isinstance(scaling, dict) and scaling.get("type", scaling.get("rope_type")) in ("su", "yarn"):
        config = config.replacing(
            rope_scaling={**scaling, "type": "longrope", "rope_type": "longrope"}
        )  # earlier names
    defaults = {"max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
    config = config.defaulting(**defaults)
    description = from_config.described(config)
    description["windows"] = from_config.windows_of_types(config, description, None, [True] * description["num_layers"])
    return Described(description)


FAMILY = Family(
    name="phi3",
    huggingface=HuggingFace(
        architectures=("Phi3ForCausalLM",),
        model_type="phi3",
        describe=describe,
        names=HUGGINGFACE_NAMES.changed(in_layer={"self_attn.qkv_proj": "attn.qkv", "mlp.gate_up_proj": "mlp.gate_up"}),
        transforms=_TRANSFORMS,
    ),
    gguf=Gguf(
        architectures=("phi3",),
        describe=from_gguf.describe,
        names=GGUF_NAMES.changed(in_layer={"attn_qkv": "attn.qkv", "ffn_up": "mlp.gate_up"}),
        transforms=_TRANSFORMS,
    ),
    tiny_config=lambda: tiny_config("phi3", sliding_window=40, pad_token_id=0),
    odd={
        **{"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 100},
        "sliding_window": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75},
    },
)
