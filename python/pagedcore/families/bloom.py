"""BLOOM (BigScience, 2022): scores fall with the distance (ALiBi, Press et al., 2021), a norm of the embedding."""

from __future__ import annotations

from typing import Any

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama_like import FUSED_NAMES, QKVO
from .rope import to_f32
from .tensors import TensorNames
from .transforms import fused_qkv, grouped_qkv

__all__ = ["FAMILY", "alibi_slopes"]

_BIASES = (*QKVO, "mlp.up", "mlp.down", "attn_norm", "mlp_norm", "embed_norm", "final_norm")


def alibi_slopes(num_heads: int) -> list[float]:
    """Of 2^k heads, powers of 2^(-8 / 2^k); of other numbers, those of the power of two below and, for the rest, every
    other one of the power above."""
    power: int = 1 << (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * (i + 1) / power) for i in range(power)]
    slopes += [2.0 ** (-4.0 * (2 * i + 1) / power) for i in range(num_heads - power)]
    return [to_f32(slope) for slope in slopes]


def _finish(description: dict[str, Any]) -> Described:
    slopes = alibi_slopes(description["num_heads"])
    return Described(description | {"gated_mlp": False, "embedding_norm": True, "alibi_slopes": slopes}, _BIASES)


def describe(config: Fields) -> Described:
    if config.flag("apply_residual_connection_post_layernorm", False):
        raise config.unsupported("apply_residual_connection_post_layernorm", ("false",))
    config = config.renamed(
        num_hidden_layers="num_hidden_layers" if "num_hidden_layers" in config else "n_layer",
        num_attention_heads="n_head" if "n_head" in config else "num_attention_heads",
        hidden_size="n_embed" if "n_embed" in config else "hidden_size",
        max_position_embeddings="seq_length",
    )
    defaults = {"max_position_embeddings": 2048, "hidden_act": "gelu_new", "tie_word_embeddings": True}
    config = config.defaulting(**defaults).replacing(intermediate_size=4 * config.integer("hidden_size"))
    return _finish(from_config.described(config, norm="layer", norm_eps="layer_norm_epsilon", rotates=False))


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    settings = {"norm": "layer", "activation": "gelu_tanh"}
    return _finish(from_gguf.described(fields, tensors, gated=False, rotates=False, **settings))


FAMILY = Family(
    name="bloom",
    huggingface=HuggingFace(
        architectures=("BloomForCausalLM",),
        model_type="bloom",
        describe=describe,
        names=TensorNames(
            layers="h",
            outside={
                "word_embeddings": "embed",
                "word_embeddings_layernorm": "embed_norm",
                "ln_f": "final_norm",
                "lm_head": "lm_head",
            },
            in_layer={
                "input_layernorm": "attn_norm",
                "self_attention.query_key_value": "attn.qkv",
                "self_attention.dense": "attn.o",
                "post_attention_layernorm": "mlp_norm",
                "mlp.dense_h_to_4h": "mlp.up",
                "mlp.dense_4h_to_h": "mlp.down",
            },
            prefixes=(("transformer.", ""),),
        ),
        transforms={"attn.qkv": grouped_qkv},
    ),
    gguf=Gguf(
        architectures=("bloom",),
        describe=describe_gguf,
        names=FUSED_NAMES.changed(outside={"token_embd_norm": "embed_norm"}),
        transforms={"attn.qkv": fused_qkv},
    ),
    tiny_config=lambda: {
        **{"model_type": "bloom", "vocab_size": 320, "hidden_size": 64, "n_layer": 3, "n_head": 4},
        **{"initializer_range": 0.15, "bos_token_id": 1, "eos_token_id": 2},
    },
    odd={"hidden_size": 120, "n_head": 3},
)
