"""Qwen3-MoE (2025): Qwen3 with small experts and none that takes every row."""

from __future__ import annotations

from . import experts, from_config
from .family import Described, Family, Gguf, HuggingFace
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKVO, tiny_config
from .qwen2_moe import mixture
from .qwen3 import describe_gguf

__all__ = ["FAMILY"]


def describe(config: Fields) -> Described:
    config = config.defaulting(num_key_value_heads=4, moe_intermediate_size=768)
    description = from_config.described(config)
    description["qk_norm"] = True
    if config.flag("use_sliding_window", False):
        description["windows"] = from_config.windows_everywhere(config, description, 4096)
    description |= mixture(config, description, count=128, per_token=8)
    return Described(description, QKVO if config.flag("attention_bias", False) else ())


FAMILY = Family(
    name="qwen3_moe",
    huggingface=HuggingFace(
        architectures=("Qwen3MoeForCausalLM",),
        model_type="qwen3_moe",
        describe=describe,
        names=HUGGINGFACE_NAMES.changed(in_layer=experts.HUGGINGFACE_NAMES),
        transforms=experts.TRANSFORMS,
    ),
    gguf=Gguf(
        architectures=("qwen3moe",), describe=describe_gguf, names=GGUF_NAMES, transforms=experts.GGUF_TRANSFORMS
    ),
    tiny_config=lambda: tiny_config(
        "qwen3_moe",
        head_dim=40,
        num_experts=16,
        num_experts_per_tok=4,
        moe_intermediate_size=32,
        norm_topk_prob=True,
        decoder_sparse_step=1,
    ),
    odd={"hidden_size": 102, "moe_intermediate_size": 45, "num_experts_per_tok": 7, "num_experts": 9},
)
