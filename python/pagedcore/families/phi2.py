"""Phi 1, 1.5 and 2 (2023): attention and MLP side by side behind one layer norm, biases everywhere, half of each head
rotated."""

from __future__ import annotations

from typing import Any

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKVO, tiny_config
from .transforms import fused_qkv, input_norm

__all__ = ["FAMILY"]

_BIASES = (*QKVO, "mlp.up", "mlp.down", "attn_norm", "mlp_norm", "final_norm", "lm_head")


def _finish(description: dict[str, Any], qk_norm: bool) -> Described:
    description |= {"gated_mlp": False, "parallel_block": True}
    if not qk_norm:
        return Described(description, _BIASES)
    return Described(description | {"qk_norm": True, "qk_norm_kind": "layer"}, (*_BIASES, "attn.q_norm", "attn.k_norm"))


def describe(config: Fields) -> Described:
    config = config.defaulting(max_position_embeddings=2048, hidden_act="gelu_new", partial_rotary_factor=0.5)
    description = from_config.described(config, norm="layer", norm_eps="layer_norm_eps")
    return _finish(description, config.flag("qk_layernorm", False))


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    description = from_gguf.described(fields, tensors, norm="layer", activation="gelu_tanh", gated=False)
    return _finish(description, False)


FAMILY = Family(
    name="phi2",
    huggingface=HuggingFace(
        architectures=("PhiForCausalLM",),
        model_type="phi",
        describe=describe,
        names=HUGGINGFACE_NAMES.changed(
            outside={"model.final_layernorm": "final_norm"},
            in_layer={
                **{"self_attn.dense": "attn.o", "mlp.fc1": "mlp.up", "mlp.fc2": "mlp.down"},
                **{"self_attn.q_layernorm": "attn.q_norm", "self_attn.k_layernorm": "attn.k_norm"},
            },
        ),
        transforms={"attn_norm": input_norm},
    ),
    gguf=Gguf(
        architectures=("phi2",),
        describe=describe_gguf,
        names=GGUF_NAMES.changed(in_layer={"attn_qkv": "attn.qkv"}),
        transforms={"attn.qkv": fused_qkv, "attn_norm": input_norm},
    ),
    tiny_config=lambda: tiny_config("phi", hidden_act="gelu_new"),
    odd={
        **{"hidden_size": 120, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 100},
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.4},
    },
)
