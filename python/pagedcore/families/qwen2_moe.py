"""Qwen1.5-MoE and Qwen2-MoE (2024): small experts, and one that takes every row, through a gate."""

from __future__ import annotations

from typing import Any

from . import experts, from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKV, tiny_config

__all__ = ["FAMILY", "mixture"]

_NAMES = HUGGINGFACE_NAMES.changed(
    in_layer=experts.HUGGINGFACE_NAMES
    | {f"mlp.shared_expert.{part}_proj": f"mlp.shared.{part}" for part in ("gate", "up", "down")}
    | {"mlp.shared_expert_gate": "mlp.shared_gate"}
)


def mixture(config: Fields, description: dict[str, Any], *, count: int, per_token: int) -> dict[str, Any]:
    """Every ``decoder_sparse_step``-th layer has experts, unless ``mlp_only_layers`` names it."""
    found = experts.from_config(config, count=count, size="moe_intermediate_size", per_token=per_token)
    layers = description["num_layers"]
    step = config.integer("decoder_sparse_step", 1)
    dense = config.get("mlp_only_layers") or []
    if not isinstance(dense, list) or not all(type(layer) is int and 0 <= layer < layers for layer in dense):
        raise config.refuse("mlp_only_layers", f"is not a list of layers, 0 to {layers - 1}")
    mixed = [int(layer not in dense and (layer + 1) % step == 0) for layer in range(layers)]
    return found | {"mixture_layers": [] if all(mixed) else mixed}


def describe(config: Fields) -> Described:
    config = config.defaulting(num_key_value_heads=16, moe_intermediate_size=1408, shared_expert_intermediate_size=5632)
    description = from_config.described(config)
    if config.flag("use_sliding_window", False):
        first = config.integer("max_window_layers", 28, minimum=0)
        slides = [layer < first and layer % 2 == 0 for layer in range(description["num_layers"])]
        description["windows"] = from_config.windows_of_types(config, description, 4096, slides)
    shared = {
        "shared_expert_size": config.integer("shared_expert_intermediate_size"),
        "shared_expert_gate": True,
    }
    description |= mixture(config, description, count=60, per_token=4) | shared
    return Described(description, QKV if config.flag("qkv_bias", True) else ())


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    return from_gguf.describe(fields.defaulting(expert_weights_norm=False), tensors)


FAMILY = Family(
    name="qwen2_moe",
    huggingface=HuggingFace(
        architectures=("Qwen2MoeForCausalLM",),
        model_type="qwen2_moe",
        describe=describe,
        names=_NAMES,
        transforms=experts.TRANSFORMS,
    ),
    gguf=Gguf(
        architectures=("qwen2moe",), describe=describe_gguf, names=GGUF_NAMES, transforms=experts.GGUF_TRANSFORMS
    ),
    tiny_config=lambda: tiny_config(
        "qwen2_moe",
        num_experts=8,
        num_experts_per_tok=3,
        moe_intermediate_size=64,
        shared_expert_intermediate_size=96,
        mlp_only_layers=[1],
    ),
    odd={
        "hidden_size": 102,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "moe_intermediate_size": 33,
        "shared_expert_intermediate_size": 100,
    },
)
