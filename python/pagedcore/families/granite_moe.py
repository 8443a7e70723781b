"""Granite 3 (2024) with experts, and with one more for every row: Granite's scales, a softmax over the chosen."""

from __future__ import annotations

from typing import Any

from . import experts, from_config, granite
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama import NEIGHBOURS
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKVO, tiny_config
from .transforms import split_rows

__all__ = ["FAMILY", "SHARED"]

_NAMES = HUGGINGFACE_NAMES.changed(
    in_layer={
        "block_sparse_moe.router.layer": "mlp.router",
        "block_sparse_moe.router": "mlp.router",
        "block_sparse_moe.input_linear": "mlp.experts.gate_up",
        "block_sparse_moe.output_linear": "mlp.experts.down",
        "block_sparse_moe.experts.gate_up_proj": "mlp.experts.gate_up",
        "block_sparse_moe.experts.down_proj": "mlp.experts.down",
        "shared_mlp.input_linear": "mlp.shared.gate_up",
        "shared_mlp.output_linear": "mlp.shared.down",
    }
)


def describe(config: Fields) -> Described:
    config = config.defaulting(max_position_embeddings=2048)
    mixture = experts.from_config(config, count=8, size="intermediate_size", per_token=2, router="chosen_softmax")
    mixture["shared_expert_size"] = config.integer("shared_intermediate_size", 0, minimum=0)
    description = from_config.described(config) | granite.scales(config, granite.HUGGINGFACE_SCALES)
    return Described(description | mixture, QKVO if config.flag("attention_bias", False) else ())


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    return granite.describe_gguf(fields.defaulting(expert_gating_func=3), tensors)


def _tiny(model_type: str, **settings: Any) -> dict[str, Any]:
    scales = {"embedding_multiplier": 6.0, "residual_multiplier": 0.3, "attention_multiplier": 0.2}
    return tiny_config(
        model_type,
        num_local_experts=7,
        num_experts_per_tok=3,
        intermediate_size=64,
        logits_scaling=4.0,
        **scales,
        **settings,
    )


_ODD = {"hidden_size": 102, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 50}
_HALVES = split_rows(lambda d: {f"mlp.shared.{part}": d["shared_expert_size"] for part in ("gate", "up")})
_GGUF = Gguf(
    architectures=("granitemoe",),
    describe=describe_gguf,
    names=GGUF_NAMES,
    transforms=NEIGHBOURS | experts.GGUF_TRANSFORMS,
)


def _huggingface(architecture: str, model_type: str) -> HuggingFace:
    return HuggingFace(
        architectures=(architecture,),
        model_type=model_type,
        describe=describe,
        names=_NAMES,
        transforms=experts.TRANSFORMS | {"mlp.shared.gate_up": _HALVES},
    )


FAMILY = Family(
    name="granite_moe",
    huggingface=_huggingface("GraniteMoeForCausalLM", "granitemoe"),
    gguf=_GGUF,
    tiny_config=lambda: _tiny("granitemoe"),
    odd=_ODD,
)
SHARED = Family(
    name="granite_moe_shared",
    huggingface=_huggingface("GraniteMoeSharedForCausalLM", "granitemoeshared"),
    gguf=_GGUF,
    tiny_config=lambda: _tiny("granitemoeshared", shared_intermediate_size=96),
    odd=_ODD | {"shared_intermediate_size": 33},
)
