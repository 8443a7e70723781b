"""Falcon (Almazrouei et al., 2023): attention and MLP side by side, one KV head or several. The first, RW, have them in
turn, and ALiBi, whose slopes are rounded to bfloat16 and divided like the scores."""

from __future__ import annotations

import math
from typing import Any

from . import from_config, from_gguf
from .bloom import alibi_slopes
from .family import Described, Family, Gguf, HuggingFace, Parts, Tensors
from .fields import Fields
from .llama_like import FUSED_NAMES, QKVO
from .rope import to_f32
from .tensors import Tensor, TensorNames
from .transforms import fused_qkv, grouped_qkv, input_norm

__all__ = ["FAMILY"]

_NORMS = ("attn_norm", "mlp_norm", "final_norm")
_BIASES = (*QKVO, "mlp.up", "mlp.down")


def _bf16(value: float) -> float:
    """Of 8 bits, ties to even."""
    fraction, exponent = math.frexp(value)
    return math.ldexp(round(fraction * 256) / 256, exponent)


def describe(config: Fields) -> Described:
    for old, new in (("n_layer", "num_hidden_layers"), ("n_head", "num_attention_heads")):
        config = config.renamed(**{new: old}) if old in config and new not in config else config
    heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    is_new, parallel = config.flag("new_decoder_architecture", False), config.flag("parallel_attn", True)
    kv_heads = config.integer("num_kv_heads", config.integer("n_head_kv", heads)) if is_new else heads
    if not is_new and config.flag("multi_query", True):
        kv_heads = 1
    config = config.renamed(intermediate_size="ffn_hidden_size", hidden_act="activation").defaulting(
        **{"intermediate_size": 4 * hidden, "hidden_act": "gelu", "tie_word_embeddings": True},
        max_position_embeddings=2048,
    )
    config = config.replacing(num_key_value_heads=kv_heads)
    alibi = config.flag("alibi", False)
    description = from_config.described(config, norm="layer", norm_eps="layer_norm_epsilon", rotates=not alibi)
    description |= {"gated_mlp": False, "parallel_block": is_new or parallel}
    if alibi:
        scale = description["head_dim"] ** -0.5
        description["alibi_slopes"] = [to_f32(scale * _bf16(slope)) for slope in alibi_slopes(heads)]
    return Described(description, (*_NORMS, *(_BIASES if config.flag("bias", False) else ())))


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    description: dict[str, Any] = from_gguf.described(fields, tensors, norm="layer", activation="gelu", gated=False)
    biases = from_gguf.biases(tensors, _BIASES, _GGUF_NAMES, {"attn.qkv": QKVO[:3]})
    return Described(description | {"parallel_block": True}, (*_NORMS, *biases))


def _only_norm(tensor: Tensor, description: Any, source: str) -> Parts:
    """The MLP's; attention's too, where that has none of its own."""
    return {"mlp_norm": tensor, "attn_norm": tensor}


_GGUF_NAMES = FUSED_NAMES.changed(in_layer={"attn_norm": "only_norm", "attn_norm_2": "attn_norm", "ffn_norm": ""})
FAMILY = Family(
    name="falcon",
    huggingface=HuggingFace(
        architectures=("FalconForCausalLM",),
        model_type="falcon",
        describe=describe,
        names=TensorNames(
            layers="transformer.h",
            outside={
                **{"transformer.word_embeddings": "embed", "transformer.ln_f": "final_norm", "lm_head": "lm_head"},
            },
            in_layer={
                **{"input_layernorm": "attn_norm", "ln_attn": "attn_norm", "ln_mlp": "mlp_norm"},
                "post_attention_layernorm": "mlp_norm",
                "self_attention.query_key_value": "attn.qkv",
                "self_attention.dense": "attn.o",
                "mlp.dense_h_to_4h": "mlp.up",
                "mlp.dense_4h_to_h": "mlp.down",
            },
        ),
        transforms={"attn.qkv": grouped_qkv, "attn_norm": input_norm},
    ),
    gguf=Gguf(("falcon",), describe_gguf, _GGUF_NAMES, {"attn.qkv": fused_qkv, "only_norm": _only_norm}),
    tiny_config=lambda: {
        **{"model_type": "falcon", "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 3},
        **{"num_attention_heads": 4, "initializer_range": 0.15, "bos_token_id": 1, "eos_token_id": 2},
    },
    odd={
        **{"hidden_size": 120, "num_attention_heads": 6, "num_kv_heads": 2, "ffn_hidden_size": 100},
        **{"new_decoder_architecture": True, "bias": True},
    },
)
